"""Connecting a project of a real Label Studio to the real backend."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

from backend import jobs
from backend.app import create_app
from backend.settings import Settings
from tasks import project
from tasks.client import LabelStudioError
from tasks.project import SAMPLING, TITLE, basic_authorization

USER, PASSWORD = "label-studio", "a password"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, username=USER, password=PASSWORD, label_studio_url="http://127.0.0.1:9")


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, create_app(settings), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


@pytest.fixture
def serve(settings: Settings) -> Iterator[Callable[[], str]]:
    """Serves the backend once more, at an address of its own."""
    with ExitStack() as servers:
        yield lambda: servers.enter_context(served(settings))


def connections(s: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """ML backends and webhooks, without what Label Studio itself keeps about them."""
    backends = [{name: row[name] for name in ("id", "url", "title")} for row in s.client.ml_backends(s.project)]
    names = ("id", "url", "headers", "is_active", "send_for_all_actions", "send_payload")
    hooks = [{name: row[name] for name in names} for row in s.client.webhooks(s.project)]
    return backends, sorted(hooks, key=lambda row: row["id"])


def test_connecting_again_changes_nothing_and_foreign_ones_stay(
    scene: Callable[..., Any], serve: Callable[[], str], settings: Settings
) -> None:
    s = scene(1)
    here, there, other = serve(), serve(), serve()
    # Somebody else's backend, with the webhook that Label Studio makes for it, and a webhook of the hospital's own.
    foreign = {"project": s.project, "url": other, "title": "Other", "auth_method": "BASIC_AUTH"}
    s.client.add_ml_backend(foreign | {"basic_auth_user": USER, "basic_auth_pass": PASSWORD})
    s.client.save_webhook({"project": s.project, "url": "http://127.0.0.1:9/archive", "send_for_all_actions": True})
    foreign_backends, foreign_hooks = connections(s)
    assert [row["url"] for row in foreign_hooks] == [f"{other}/webhook", "http://127.0.0.1:9/archive"]
    s.client.update_project(s.project, model_version="")

    assert project.connect(s.client, s.project, f"{here}/", USER, PASSWORD) == [
        f"sampling: Sequential sampling -> {SAMPLING}",
        f"ML backend: {here}",
        f"webhook: {here}/webhook, with authorization",
        f"model version: {TITLE} -> none until the first model",
    ]
    remote = s.client.project(s.project)
    assert (remote["sampling"], remote["model_version"]) == (SAMPLING, "")
    backends, hooks = connections(s)
    ours, hook = backends[-1], hooks[-1]
    assert (ours["url"], ours["title"]) == (here, TITLE)
    assert hook == {
        "id": hook["id"],
        "url": f"{here}/webhook",
        "headers": {"Authorization": basic_authorization(USER, PASSWORD)},
        "is_active": True,
        "send_for_all_actions": True,
        "send_payload": True,
    }
    assert (backends[:-1], hooks[:-1]) == (foreign_backends, foreign_hooks)
    before = connections(s)
    assert project.connect(s.client, s.project, here, USER, PASSWORD) == []
    assert connections(s) == before

    # An event of Label Studio's gets in.
    bell = jobs.Bell(settings)
    bell.rung()
    s.submit(s.ids()[0], s.choices(bom="benign"))
    assert bell.rung() == {s.project}

    # Another address: the same backend and webhook move to it.
    assert project.connect(s.client, s.project, there, USER, PASSWORD) == [
        f"ML backend: {here} -> {there}",
        f"webhook: {there}/webhook, with authorization",
    ]
    assert connections(s) == (
        [*foreign_backends, ours | {"url": there}],
        [*foreign_hooks, hook | {"url": f"{there}/webhook"}],
    )
    assert project.connect(s.client, s.project, there, USER, PASSWORD) == []

    # A webhook that was switched off or narrowed comes back.
    s.client.save_webhook({"url": f"{there}/webhook", "is_active": False, "send_for_all_actions": False}, hook["id"])
    assert project.connect(s.client, s.project, there, USER, PASSWORD) == [
        f"webhook: {there}/webhook, with authorization"
    ]
    assert connections(s)[1][-1] == hook | {"url": f"{there}/webhook"}


def test_what_an_admin_connected_by_hand_becomes_ours(scene: Callable[..., Any], serve: Callable[[], str]) -> None:
    s = scene(1)
    here = serve()
    by_hand = {"project": s.project, "url": here, "title": "Nodules", "auth_method": "BASIC_AUTH"}
    s.client.add_ml_backend(by_hand | {"basic_auth_user": USER, "basic_auth_pass": PASSWORD})
    assert s.client.project(s.project)["model_version"] == "Nodules"
    changes = project.connect(s.client, s.project, here, USER, PASSWORD)
    assert f"model version: {TITLE} -> none until the first model" in changes
    backends, hooks = connections(s)
    assert [row["title"] for row in backends] == [TITLE]
    assert len(hooks) == 1
    assert s.client.project(s.project)["model_version"] == ""
    assert project.connect(s.client, s.project, here, USER, PASSWORD) == []


def test_an_unreachable_backend_is_refused_by_name(scene: Callable[..., Any]) -> None:
    s = scene(0)
    with pytest.raises(LabelStudioError, match="POST /api/ml: 400"):
        project.connect(s.client, s.project, "http://127.0.0.1:9", USER, PASSWORD)
