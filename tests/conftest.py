"""A real Label Studio for the tests: one server a session, from a database that is migrated once and then copied."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from demo import labelstudio
from demo.labelstudio import Credentials
from demo.stack import Stack


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


def _prepare(folder: Path, document_root: Path, stack: Stack) -> LabelStudio:
    credentials = Credentials.in_folder(folder)
    port = stack.port("label-studio")
    stack.start(labelstudio.service(folder / "label-studio", port, document_root, credentials))
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
) -> Iterator[Callable[[], LabelStudio]]:
    """Starts a Label Studio of one's own, without projects, in some 5 to 15 s; it is stopped after the session."""
    with ExitStack() as stacks:

        def start() -> LabelStudio:
            folder = tmp_path_factory.mktemp("label-studio") / "state"
            shutil.copytree(label_studio_template, folder)
            return _prepare(folder, tmp_path_factory.mktemp("files"), stacks.enter_context(Stack(folder)))

        yield start


@pytest.fixture(scope="session")
def label_studio(start_label_studio: Callable[[], LabelStudio]) -> LabelStudio:
    """The session's Label Studio. Tests share it: give each project a title of its own."""
    return start_label_studio()
