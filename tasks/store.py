"""The store: SQLAlchemy over SQLite (WAL) or PostgreSQL, brought to the newest tables when it is opened."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event, make_url, text, update
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.orm import Session

from tasks.tables import Base, Entry, Project

FORBIDDEN = "42501"  # PostgreSQL's insufficient_privilege
MIGRATIONS = Path(__file__).parent / "migrations"
TURNS = 20262  # the first half of PostgreSQL's lock numbers, which other programs may use as well
# A machine that vanishes without a word is noticed within a minute, on both sides, and its locks are given up.
KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


class MigrationRefused(RuntimeError):
    """The store is of another release, and the role that opened it may not change its tables."""


class Store:
    """Sessions over one database; safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, url: str, migrations_url: str = "") -> "Store":
        """Connect to `url` and migrate it; raises SQLAlchemy's errors when it cannot be reached.

        migrations_url: the same PostgreSQL database under a role that owns the tables. The role of `url` then gets all
        rights on them but to change what the ledger holds. Raises MigrationRefused when a role may not migrate.
        """
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
            alive = KEEPALIVES | {"connect_timeout": 10}
            engine = create_engine(parsed, pool_pre_ping=True, hide_parameters=True, connect_args=alive)
            event.listen(engine, "connect", _prepare_postgresql)
            if migrations_url:
                owner = create_engine(make_url(migrations_url), hide_parameters=True, connect_args=alive)
                _migrate(owner)
                _grant(owner, parsed.username or "")
                owner.dispose()
            else:
                _migrate(engine)
        return cls(engine)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A session in a transaction: committed at the end, rolled back when an exception leaves it."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """A session that reads everything as it is at one moment, whatever others write meanwhile."""
        with self.begin() as session:
            if self.engine.dialect.name == "sqlite":
                session.execute(text("BEGIN"))  # the driver would begin at the first write
            else:
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    @contextmanager
    def turn(self, project_id: int, *, wait: bool = True) -> Iterator[bool]:
        """Have a project to oneself, among all threads, processes and machines that share the store.

        Whoever changes a project in Label Studio by what the store says holds its turn: two pushes at once would
        import twice. The turn ends with its process. Yields whether it was got; with `wait` it always is.
        """
        if self.engine.dialect.name == "sqlite":
            path = Path(self.engine.url.database or "").with_suffix(f".turn-{project_id}")
            with path.open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                except BlockingIOError:
                    yield False
                else:
                    yield True
            return
        lock = text(
            "SELECT pg_advisory_lock(:turns, :project)" if wait else "SELECT pg_try_advisory_lock(:turns, :project)"
        )
        key = {"turns": TURNS, "project": project_id}
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            mine = connection.scalar(lock, key) is not False
            try:
                yield mine
            finally:
                if mine:
                    connection.execute(text("SELECT pg_advisory_unlock(:turns, :project)"), key)

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
        created_at: str | None = None,
        connection: str | None = None,
    ) -> Project:
        """Insert the project, or refresh its label config (and what else is given).

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
            if created_at is not None:
                project.created_at = created_at
            if connection is not None:
                project.connection = connection
            return project


def lock_project(session: Session, project_id: int) -> None:
    """Make other transactions that lock the project wait for the end of this one. Call it before reading.

    An UPDATE that changes nothing: SQLite knows no SELECT FOR UPDATE, and begins its transaction with the first write.
    """
    session.execute(update(Project).where(Project.id == project_id).values(id=project_id))


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    """Let the server notice a client that is gone; its own default is two hours."""
    with connection.cursor() as cursor:
        for name, value in KEEPALIVES.items():
            cursor.execute(f"SET tcp_{name} = {value}")
    connection.commit()


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
        try:
            command.upgrade(config, "head")
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) != FORBIDDEN:
                raise
            raise MigrationRefused(
                f"the database's tables are not those of this release, and the role {engine.url.username!r} may not"
                " change them: set SECOND_LOOK_MIGRATIONS_URL to a URL of their owner, and start serve or the worker"
            ) from error


def _grant(owner: Engine, role: str) -> None:
    """Let the service's role work with the tables; in the ledger it may read and add, and nothing else."""
    with owner.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(20262)"))  # as migrations: two grants at once collide
        if connection.scalar(text("SELECT current_user")) == role:
            return
        quote = connection.dialect.identifier_preparer.quote
        schema, ledger, service = (
            quote(name) for name in (connection.dialect.default_schema_name or "public", Entry.__tablename__, role)
        )
        others = ", ".join(quote(name) for name in Base.metadata.tables if name != Entry.__tablename__)
        for statement in (
            f"REVOKE ALL ON {ledger} FROM {service}",
            f"GRANT SELECT, INSERT ON {ledger} TO {service}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {others} TO {service}",
            f"GRANT SELECT ON alembic_version TO {service}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {service}",
        ):
            connection.execute(text(statement))
