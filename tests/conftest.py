"""Real servers for the tests, one a session: a Label Studio from a database that is migrated once and then copied, and
a PostgreSQL; and a real browser."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields
from importlib.metadata import version
from itertools import count
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import create_engine, text

from demo import labelstudio
from demo.labelstudio import Credentials
from demo.stack import Stack

BROWSER_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that two processes end together."""
    items.sort(key=lambda item: ("e2e" not in item.path.parts, item.path.name != "test_check.py"))


@dataclass(frozen=True)
class LabelStudio:
    """A running server: sessions of its two users, the admin's personal access token, and where it keeps things.

    Images under a folder below `document_root` are served once that folder is registered as a local storage.
    """

    url: str
    admin: httpx.Client
    annotator: httpx.Client
    token: str
    credentials: Credentials
    folder: Path
    document_root: Path
    stack: Stack


def _prepare(folder: Path, document_root: Path, stack: Stack, **environment: str) -> LabelStudio:
    credentials = Credentials.in_folder(folder)
    port = stack.port("label-studio")
    stack.start(labelstudio.service(folder / "label-studio", port, document_root, credentials, environment))
    url = f"http://127.0.0.1:{port}"
    admin = labelstudio.session(url, credentials.admin)
    token = labelstudio.personal_access_token(admin, credentials)
    annotator = labelstudio.sign_up(admin, credentials.annotator)
    return LabelStudio(url, admin, annotator, token, credentials, folder, document_root, stack)


@pytest.fixture(scope="session")
def label_studio_template(request: pytest.FixtureRequest) -> Path:
    """A migrated database with both users and the token, kept in pytest's cache: 40 s the first time, then nothing."""
    cache = Path(request.config.cache.mkdir("label-studio"))
    contents = "-".join(part.name for part in fields(Credentials) if part.name != "path")
    template = cache / f"{version('label-studio')}-{contents}"
    if not template.exists():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            draft = Path(scratch, "template")
            with Stack(draft) as stack:
                _prepare(draft, Path(scratch), stack)
            (draft / "stack.json").unlink()  # its ports are not to be remembered
            if not template.exists():  # another run may have been quicker
                draft.rename(template)
    return template


@pytest.fixture(scope="session")
def start_label_studio(
    label_studio_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., LabelStudio]]:
    """Starts a Label Studio of one's own, without projects, in some 5 to 15 s; it is stopped after the session.

    Keyword arguments go over its environment.
    """
    with ExitStack() as stacks:

        def start(**environment: str) -> LabelStudio:
            folder = tmp_path_factory.mktemp("label-studio") / "state"
            shutil.copytree(label_studio_template, folder)
            return _prepare(
                folder, tmp_path_factory.mktemp("files"), stacks.enter_context(Stack(folder)), **environment
            )

        yield start


@pytest.fixture(scope="session")
def label_studio(start_label_studio: Callable[..., LabelStudio]) -> LabelStudio:
    """The session's Label Studio. Tests share it: give each project a title of its own."""
    return start_label_studio()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Makes an empty database on a PostgreSQL of the session and returns its URL, as the superuser `postgres`.

    It asks nobody for a password: any role that a test creates may sign in.
    """
    programs = Path(shutil.which("initdb") or max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default="initdb"))
    if not programs.exists():
        pytest.fail("these tests need PostgreSQL's programs: apt-get install postgresql")
    # PostgreSQL refuses to run as root, and pytest's own folders are closed to others.
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    with tempfile.TemporaryDirectory(prefix="second-look-postgresql-") as folder, socket.socket() as free:
        os.chown(folder, user.pw_uid, user.pw_gid)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()

        def run(program: str, *arguments: str) -> None:
            command = [str(programs.resolve().with_name(program)), "-D", f"{folder}/data", *arguments]
            # Its output would hold the pipe open as long as the server runs.
            with Path(folder, "log").open("a") as log:
                done = subprocess.run(command, stdout=log, stderr=log, user=user.pw_uid, group=user.pw_gid, cwd=folder)
            assert done.returncode == 0, Path(folder, "log").read_text()

        run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync")
        run("pg_ctl", "start", "--wait", "-o", f"-h 127.0.0.1 -p {port} -k {folder} -F")
        url = f"postgresql+psycopg://postgres@127.0.0.1:{port}"
        names = count(1)

        def make() -> str:
            name = f"test_{next(names)}"
            engine = create_engine(f"{url}/postgres", isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(text(f"CREATE DATABASE {name}"))
            engine.dispose()
            return f"{url}/{name}"

        try:
            yield make
        finally:
            run("pg_ctl", "stop", "--mode=immediate")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium or Chrome, without a screen."""
    program = next(path for name in BROWSERS if (path := shutil.which(name)))
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=BROWSER_FLAGS)
        yield opened
        opened.close()
