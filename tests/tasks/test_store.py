import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, inspect, make_url, select, text
from sqlalchemy.exc import ProgrammingError

from tasks import ledger
from tasks.store import MigrationRefused, Store
from tasks.tables import Base, Heartbeat, Project


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'folder' / 'store.db'}"


def test_migrations_make_the_tables_of_the_models(url: str) -> None:
    store = Store.open(url)
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
        found = set(inspect(connection).get_table_names())
    assert found == {*Base.metadata.tables, "alembic_version"}


def test_opening_again_keeps_what_is_there(url: str) -> None:
    Store.open(url).register_project(1, "<View/>")
    again = Store.open(url)
    assert again.project(1).label_config == "<View/>"
    assert again.project(2) is None
    with again.engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1


def test_processes_may_open_a_new_store_at_the_same_time(url: str) -> None:
    program = f"from tasks.store import Store; Store.open({url!r}).register_project(1, '<View/>')"
    starts = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [start.wait() for start in starts] == [0, 0]
    assert Store.open(url).project(1) is not None


def test_registering_refreshes_what_is_given(url: str) -> None:
    store = Store.open(url)
    made = store.register_project(1, "<View/>", title="Nodules", extra_params={"batch_size": 5})
    assert (made.title, made.extra_params, made.alarms, made.version, made.cursor) == (
        "Nodules",
        {"batch_size": 5},
        [],
        None,
        None,
    )
    with store.begin() as session:
        session.get_one(Project, 1).cursor = "2026-01-01T00:00:00.000000+00:00"
    again = store.register_project(1, "<View/>")
    assert (again.title, again.extra_params) == ("Nodules", {"batch_size": 5})
    assert again.cursor == "2026-01-01T00:00:00.000000+00:00"
    # What was read by the old label config has to be read again.
    assert store.register_project(1, "<View><Image/></View>", extra_params={}).cursor is None
    assert store.project(1).extra_params == {}
    assert store.project(1).label_config == "<View><Image/></View>"


def test_threads_may_register_a_project_at_the_same_time(url: str) -> None:
    store, start, failed = Store.open(url), threading.Barrier(6), []

    def register() -> None:
        start.wait()
        try:
            store.register_project(1, "<View/>")
        except Exception as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=register) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with store.begin() as session:
        assert len(session.scalars(select(Project)).all()) == 1


def test_a_failed_transaction_leaves_nothing_and_errors_hide_row_data(url: str) -> None:
    store = Store.open(url)
    with pytest.raises(RuntimeError), store.begin() as session:
        session.add(Project(id=1, label_config="<View/>"))
        raise RuntimeError
    assert store.project(1) is None
    with pytest.raises(Exception, match="FOREIGN KEY") as caught, store.begin() as session:
        session.execute(text("INSERT INTO heartbeats VALUES ('secret-host', 1.0)"))
        session.execute(
            text(
                "INSERT INTO jobs (project_id, kind, state, reason, step, done, total, attempts, created_at)"
                " VALUES (9, :kind, '', '', '', 0, 0, 0, 0)"
            ),
            {"kind": "patient-17"},
        )
    assert "patient-17" not in str(caught.value)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_project_has_one_turn_at_a_time_and_it_ends_with_its_process(
    database: str, url: str, request: pytest.FixtureRequest
) -> None:
    if database == "postgresql":
        url = request.getfixturevalue("postgresql")()
    store = Store.open(url)
    with store.turn(1) as mine, store.turn(1, wait=False) as again, store.turn(2, wait=False) as other:
        assert (mine, again, other) == (True, False, True)
    program = f"from tasks.store import Store\nwith Store.open({url!r}).turn(1): print('mine', flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "mine\n"
    with store.turn(1, wait=False) as mine:
        assert not mine
    holder.kill()
    with store.turn(1) as mine:  # waits until the database has noticed
        assert mine
    holder.communicate()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_one_turn_follows_another(database: str, url: str, request: pytest.FixtureRequest) -> None:
    if database == "postgresql":
        url = request.getfixturevalue("postgresql")()
    store, inside, most = Store.open(url), [], []

    def take(number: int) -> None:
        for _ in range(5):
            with store.turn(1):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 20


def test_on_postgresql_the_service_adds_to_the_ledger_and_changes_nothing_of_it(
    postgresql: Callable[[], str],
) -> None:
    admin = make_url(postgresql())
    roles = {name: f'{name} of "{admin.database}"' for name in ("owner", "service")}  # names that need quotes
    with create_engine(admin).connect() as server:
        for role in roles.values():
            quoted = server.dialect.identifier_preparer.quote(role)
            server.execute(text(f"CREATE ROLE {quoted} LOGIN"))
        owner = server.dialect.identifier_preparer.quote(roles["owner"])
        server.execute(text(f"ALTER SCHEMA public OWNER TO {owner}"))
        server.commit()
    urls = {name: admin.set(username=role).render_as_string() for name, role in roles.items()}

    with pytest.raises(MigrationRefused, match="SECOND_LOOK_MIGRATIONS_URL"):
        Store.open(urls["service"])
    for _ in range(2):
        store = Store.open(urls["service"], urls["owner"])
    store = Store.open(urls["service"])  # web workers need no more rights
    store.register_project(1, "<View/>")
    with store.begin() as session:
        ledger.append(session, 1, "created", {"to": {}}, task_id=1)
        session.add(Heartbeat(owner="box:1", at=1.0))
    with store.begin() as session:
        session.delete(session.get_one(Heartbeat, "box:1"))
    for statement in (
        "UPDATE ledger SET actor = 7",
        "DELETE FROM ledger",
        "TRUNCATE ledger",
        "ALTER TABLE ledger DISABLE TRIGGER ledger_append_only",
        "DROP TRIGGER ledger_append_only ON ledger",
        "DROP TABLE ledger",
    ):
        with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"), store.begin() as session:
            session.execute(text(statement))
    # Not even the owner does it by mistake.
    with pytest.raises(ProgrammingError, match="append-only"), Store.open(urls["owner"]).begin() as session:
        session.execute(text("TRUNCATE ledger"))
    with store.begin() as session:
        assert ledger.verify(session, 1) == []
        assert ledger.head(session, 1).length == 1


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_snapshot_sees_one_moment(database: str, url: str, request: pytest.FixtureRequest) -> None:
    store = Store.open(url if database == "sqlite" else request.getfixturevalue("postgresql")())
    store.register_project(1, "<View/>")
    with store.snapshot() as session:
        assert len(session.scalars(select(Project)).all()) == 1
        store.register_project(2, "<View/>")
        assert len(session.scalars(select(Project)).all()) == 1
    with store.snapshot() as session:
        assert len(session.scalars(select(Project)).all()) == 2
