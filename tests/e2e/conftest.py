"""The whole loop on small phantoms: Label Studio, the backend and the worker as `second-look demo` starts them."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from rich.console import Console

from backend.settings import Settings
from demo import labelstudio, run
from demo.labelstudio import Account
from demo.phantoms import write_phantoms
from demo.run import Running

IMAGES = 120
# Enough for a loop, not for a good model: the check on 600 phantoms measures that.
QUICK = {
    "SECOND_LOOK_EPOCHS": "1",
    "SECOND_LOOK_IMAGE_SIZE": "64",
    "SECOND_LOOK_FOLDS": "3",
    "SECOND_LOOK_POLL_SECONDS": "1",
    "SECOND_LOOK_GATE_LEVEL": "1",  # what hardly learns anything must not be refused by chance
}
TINY = {
    "BACKBONE": "resnet10t",
    "WEIGHTS": "scratch",
    "IMAGE_SIZE": "32",
    "FOLDS": "2",
    "EPOCHS": "1",
    "HEAD_SEEDS": "1",
    "BATCH_SIZE": "4",
    "HEAD_HOURS": "0",
    "RETRAIN_AFTER": "1000",
}


@pytest.fixture(scope="session")
def tiny() -> Callable[..., tuple[Settings, dict[str, str]]]:
    """Settings of a backend that trains in seconds and never unasked, and the same as a process's environment."""

    def make(**own: str) -> tuple[Settings, dict[str, str]]:
        chosen = TINY | own
        environment = {f"SECOND_LOOK_{key}": value for key, value in chosen.items()}
        return Settings(**{key.lower(): value for key, value in chosen.items()}), environment

    return make


@pytest.fixture(scope="session")
def make_project(label_studio: Any) -> Callable[..., int]:
    """Makes a project of a title, a label config, a folder of images and the data of its tasks; returns its number."""

    def make(title: str, config: str, folder: Path, tasks: list[dict[str, Any]]) -> int:
        number = int(labelstudio.create_project(label_studio.admin, title, config)["id"])
        labelstudio.register_local_storage(label_studio.admin, number, folder)
        labelstudio.import_tasks(label_studio.admin, number, tasks, config)
        return number

    return make


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Returns as soon as a condition holds; fails when it does not in time."""

    def wait(condition: Callable[[], object], seconds: float = 240.0) -> None:
        deadline, pause = time.monotonic() + seconds, threading.Event()
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s"
            pause.wait(0.2)

    return wait


@pytest.fixture(scope="module")
def log_in(browser: Browser) -> Callable[[str, Account], Page]:
    """Opens a Label Studio as that user sees it, on a screen of 1366 x 768."""

    def open_page(url: str, account: Account) -> Page:
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.set_default_timeout(60_000)
        page.goto(f"{url}/user/login/")
        page.fill("input[name=email]", account.email)
        page.fill("input[name=password]", account.password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda address: "login" not in address)
        return page

    return open_page


@pytest.fixture(scope="session")
def scrollable() -> Callable[[Page], int]:
    """How many parts of a page do not fit and would have to be scrolled."""
    script = """() => [...document.querySelectorAll('*')].filter(element =>
        ['auto', 'scroll'].includes(getComputedStyle(element).overflowY)
        && element.clientHeight > 0 && element.scrollHeight > element.clientHeight + 1).length"""
    return lambda page: page.evaluate(script)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of 120 phantoms."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(folder, IMAGES, 3)
    return folder


@pytest.fixture(scope="session")
def start_loop(
    label_studio_template: Path, phantoms: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], AbstractContextManager[Running]]:
    """Starts a loop of one's own: everything runs, the first training has begun."""

    @contextmanager
    def start() -> Iterator[Running]:
        folder = tmp_path_factory.mktemp("loop") / "demo"
        shutil.copytree(label_studio_template, folder)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in QUICK.items():
                patch.setenv(name, value)
            with run.started(folder, phantoms, run.CONFIG, None, Console(stderr=True)) as running:
                yield running

    return start


@pytest.fixture(scope="module")
def loop(start_loop: Callable[[], AbstractContextManager[Running]]) -> Iterator[Running]:
    """A loop whose first queue is published, shared by the tests of a module."""
    with start_loop() as running:
        run.first_queue(running, Console(stderr=True))
        yield running
