"""The store: SQLAlchemy over SQLite (WAL) or PostgreSQL, brought to the newest tables when it is opened."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tasks.tables import Project

MIGRATIONS = Path(__file__).parent / "migrations"


class Store:
    """Sessions over one database; safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, url: str) -> "Store":
        """Connect to `url` and migrate it; raises SQLAlchemy's errors when it cannot be reached."""
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            path = Path(parsed.database or "")
            path.parent.mkdir(parents=True, exist_ok=True)
            # Row data stays out of errors, and so out of the log.
            engine = create_engine(parsed, connect_args={"timeout": 30}, hide_parameters=True)
            event.listen(engine, "connect", _prepare_sqlite)
            # SQLite has no lock that spans a migration's statements: a file beside it keeps two starts apart.
            with path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _migrate(engine)
        else:
            engine = create_engine(parsed, pool_pre_ping=True, hide_parameters=True)
            _migrate(engine)
        return cls(engine)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A session in a transaction: committed at the end, rolled back when an exception leaves it."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def project(self, project_id: int) -> Project | None:
        """The project of that number, if it was registered."""
        with self.begin() as session:
            return session.get(Project, project_id)

    def register_project(
        self,
        project_id: int,
        label_config: str,
        *,
        title: str | None = None,
        extra_params: dict[str, Any] | None = None,
    ) -> Project:
        """Insert the project, or refresh its label config (and title, parameters where given).

        A changed label config makes the next reconcile read everything again.
        """
        try:
            with self.begin() as session:
                if session.get(Project, project_id) is None:
                    session.add(Project(id=project_id, label_config=label_config, title="", extra_params={}, alarms=[]))
        except IntegrityError:
            pass  # another thread registered it at the same moment
        with self.begin() as session:
            project = session.get_one(Project, project_id)
            if project.label_config != label_config:
                project.label_config, project.cursor = label_config, None
            if title is not None:
                project.title = title
            if extra_params is not None:
                project.extra_params = extra_params
            return project


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Let readers go on beside one writer, and make a writer wait for another instead of failing."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
