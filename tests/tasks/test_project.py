"""Connecting a project of a real Label Studio to the real backend."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from werkzeug.serving import make_server

from backend import jobs
from backend.app import create_app
from backend.settings import Settings
from tasks.client import LabelStudioError
from tasks.project import (
    SAMPLING,
    TITLE,
    Connection,
    basic_authorization,
    connect,
    connection_changes,
    disconnection_changes,
    hears_events,
    repair_webhook,
)

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


def connection(url: str, **changes: Any) -> Connection:
    return Connection(url, USER, PASSWORD, **changes)


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

    planned = [change.what for change in connection_changes(s.client, s.project, connection(here))]
    assert connections(s) == (foreign_backends, foreign_hooks)
    assert connect(s.client, s.project, connection(f"{here}/")) == planned
    assert planned == [
        f"webhook: {here}/webhook added",
        f"ML backend: {here} added",
        f"sampling: Sequential sampling -> {SAMPLING}",
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
    assert connect(s.client, s.project, connection(here)) == []
    assert connections(s) == before

    # An event of Label Studio's gets in.
    bell = jobs.Bell(settings)
    bell.rung()
    s.submit(s.ids()[0], s.choices(bom="benign"))
    assert bell.rung() == {s.project}

    # Another address: the same backend and webhook move to it.
    assert connect(s.client, s.project, connection(there)) == [
        f"webhook: {there}/webhook, url '{here}/webhook' -> '{there}/webhook'",
        f"ML backend: {there}, url '{here}' -> '{there}'",
    ]
    assert connections(s) == (
        [*foreign_backends, ours | {"url": there}],
        [*foreign_hooks, hook | {"url": f"{there}/webhook"}],
    )

    # A webhook that was switched off or narrowed comes back; what an admin told it beside that stays.
    changes = {"is_active": False, "send_for_all_actions": False, "headers": {"X-Proxy": "yes"}}
    s.client.save_webhook({"url": f"{there}/webhook", **changes}, hook["id"])
    assert repair_webhook(s.client, s.project, connection(there)) == [
        f"webhook: {there}/webhook, is_active False -> True, send_for_all_actions False -> True, authorization set"
    ]
    kept = hook | {"url": f"{there}/webhook", "headers": hook["headers"] | {"X-Proxy": "yes"}}
    assert connections(s)[1][-1] == kept
    assert repair_webhook(s.client, s.project, connection(there)) == []

    # The ML backend's title as the version, and a setting of it that is not ours.
    s.client.update_project(s.project, model_version=TITLE)
    signed = {"basic_auth_user": USER, "basic_auth_pass": PASSWORD, "auth_method": "BASIC_AUTH"}
    interactive = {"project": s.project, "url": there, "is_interactive": True, **signed}
    s.client.update_ml_backend(ours["id"], interactive)
    assert connect(s.client, s.project, connection(there)) == [
        f"ML backend: {there}, is_interactive True -> False",
        f"model version: {TITLE} -> none until the first model",
    ]
    assert s.client.project(s.project)["model_version"] == ""
    assert connect(s.client, s.project, connection(there)) == []

    for change in disconnection_changes(s.client, s.project, connection(there), "Uniform sampling"):
        change.apply()
    assert connections(s) == (foreign_backends, foreign_hooks)
    assert s.client.project(s.project)["sampling"] == "Uniform sampling"
    assert disconnection_changes(s.client, s.project, connection(there), "Uniform sampling") == []


def test_what_an_admin_left_becomes_ours_or_goes(scene: Callable[..., Any], serve: Callable[[], str]) -> None:
    s = scene(1)
    here, gone = serve(), "http://127.0.0.1:9"
    by_hand = {"project": s.project, "url": here, "title": "Nodules", "auth_method": "BASIC_AUTH"}
    for _ in range(2):  # two attempts, of which one lost its webhook, as where Label Studio blocks webhooks alone
        s.client.add_ml_backend(by_hand | {"basic_auth_user": USER, "basic_auth_pass": PASSWORD})
    assert s.client.project(s.project)["model_version"] == "Nodules"
    assert not hears_events(s.client, s.project, connection(here))  # Label Studio's own webhook does not sign in
    # The webhook of a backend that was removed is left, at an address that is ours no more.
    header = {"Authorization": basic_authorization(USER, PASSWORD)}
    s.client.save_webhook({"project": s.project, "url": f"{gone}/webhook", "headers": header})
    assert hears_events(s.client, s.project, connection(here))
    changes = connect(s.client, s.project, connection(here))
    assert changes == [
        f"webhook: {here}/webhook, authorization set",
        f"webhook: {gone}/webhook removed",
        f"ML backend: {here}, title 'Nodules' -> '{TITLE}'",
        f"ML backend: {here} removed",
        f"sampling: Sequential sampling -> {SAMPLING}",
        "model version: Nodules -> none until the first model",
    ]
    backends, hooks = connections(s)
    assert [row["title"] for row in backends] == [TITLE]
    assert [row["url"] for row in hooks] == [f"{here}/webhook"]
    assert s.client.project(s.project)["model_version"] == ""
    assert connect(s.client, s.project, connection(here)) == []

    # Polling needs none of it.
    assert connect(s.client, s.project, connection(here, poll=True)) == [
        f"ML backend: {here} removed",
        f"webhook: {here}/webhook removed",
    ]
    assert connections(s) == ([], [])
    assert connect(s.client, s.project, connection(here, poll=True)) == []
    assert s.client.project(s.project)["sampling"] == SAMPLING


def test_the_published_version_comes_back(scene: Callable[..., Any]) -> None:
    s = scene(1)
    task = s.ids()[0]
    for name in ("v1-queue-order", "v2-queue-order"):
        prediction = {"task": task, "result": s.choices(bom="benign"), "score": 0.1, "model_version": name}
        s.client.import_predictions(s.project, [prediction])
    poll = connection("http://127.0.0.1:9", poll=True)
    assert connect(s.client, s.project, poll, "v2-queue-order") == [
        f"sampling: Sequential sampling -> {SAMPLING}",
        "model version: none -> v2-queue-order",
    ]
    assert connect(s.client, s.project, poll, "v2-queue-order") == []
    changes = disconnection_changes(s.client, s.project, poll, versions=["v1-queue-order", "v2-queue-order"])
    assert [change.what for change in changes] == [
        f"sampling: {SAMPLING} -> Sequential sampling",
        "model version: v2-queue-order -> none",
    ]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:9", r"cannot reach the backend at http://127\.0\.0\.1:9\. Is `second-look serve` running"),
        ("http://backend:9090", r"the host needs a dot in its name .*SECOND_LOOK_PUBLIC_URL"),
    ],
)
def test_an_address_that_label_studio_refuses_leaves_nothing(scene: Callable[..., Any], url: str, message: str) -> None:
    s = scene(0)
    with pytest.raises(LabelStudioError, match=message):
        connect(s.client, s.project, connection(url))
    assert connections(s) == ([], [])
    assert s.client.project(s.project)["sampling"] == "Sequential sampling"


def test_another_password_is_named(scene: Callable[..., Any], serve: Callable[[], str]) -> None:
    s = scene(0)
    with pytest.raises(LabelStudioError, match=r"refuses the password: .*SECOND_LOOK_PASSWORD"):
        connect(s.client, s.project, Connection(serve(), USER, "another"))
    assert connections(s) == ([], [])


def test_a_backend_without_password_serves_its_own_machine(scene: Callable[..., Any], settings: Settings) -> None:
    s = scene(0)
    with served(settings.model_copy(update={"password": SecretStr("")})) as here:
        open_to_us = Connection(here, USER, "")
        assert connect(s.client, s.project, open_to_us)[:2] == [
            f"webhook: {here}/webhook added",
            f"ML backend: {here} added",
        ]
        assert connect(s.client, s.project, open_to_us) == []
        assert hears_events(s.client, s.project, open_to_us)
        assert connections(s)[1][0]["headers"] == {}
