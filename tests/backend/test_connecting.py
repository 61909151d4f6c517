"""`setup`, `disconnect`, the guard, and one Label Studio a backend, on real Label Studios."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import stamina
from click.testing import Result
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner
from werkzeug.serving import make_server

from backend import connection
from backend import settings as chosen
from backend.app import create_app
from backend.cli import app
from backend.label_studio import PATIENCE, open_client
from backend.registry import save_json
from backend.settings import Settings
from backend.telemetry import Telemetry
from backend.worker import Worker
from demo.labelstudio import call
from demo.ports import any_port
from tasks import queue, sync
from tasks.client import Client, LabelStudioError
from tasks.identity import OtherLabelStudio
from tasks.project import SAMPLING, TITLE
from tasks.queue import Planned, queue_name
from tasks.store import Store
from tasks.tables import Annotation, Entry, Job, Project, Task, Version

CONFIG = """<View><Image name="image" value="$image"/>
<Choices name="bom" toName="image"><Choice value="benign"/><Choice value="malignant"/></Choices></View>"""
RESULT = [{"id": "b", "from_name": "bom", "to_name": "image", "type": "choices", "value": {"choices": ["benign"]}}]


@contextmanager
def serving(settings: Settings) -> Iterator[None]:
    server = make_server(settings.host, settings.port, create_app(settings), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class House:
    """A backend of one Label Studio: settings, store and client, and the command line run with these settings."""

    def __init__(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings, self._patch = settings, monkeypatch
        self.store, self.client = Store.open(settings.database), open_client(settings)

    def run(self, *arguments: str, **changes: Any) -> Result:
        self._patch.setattr(chosen, "settings", lambda: self.settings.model_copy(update=changes))
        return CliRunner().invoke(app, list(arguments))

    def changes(self, *arguments: str, **changes: Any) -> list[str]:
        result = self.run(*arguments, "--json", **changes)
        assert result.exit_code == 0, result.output
        return list(json.loads(result.stdout)["changes"])

    def project(self, title: str, tasks: int = 0, config: str = CONFIG) -> int:
        project = self.client._call("POST", "/api/projects", json={"title": title, "label_config": config})["id"]
        if tasks:
            rows = [{"image": f"/{number}.png"} for number in range(tasks)]
            self.client._call("POST", f"/api/projects/{project}/import", json=rows)
        return int(project)

    def shown(self, project: int) -> tuple[Any, ...]:
        """What Label Studio shows of the project: sampling, version, ML backends, webhooks with their headers."""
        remote = self.client.project(project)
        backends = [(row["url"], row["title"]) for row in self.client.ml_backends(project)]
        hooks = [(row["url"], row["is_active"], row["headers"]) for row in self.client.webhooks(project)]
        return remote["sampling"], remote["model_version"], backends, hooks

    def kept(self, project: int) -> Project | None:
        return self.store.project(project)

    def publish(self, project: int) -> list[int]:
        """Read the tasks and publish them all as version 1, last first."""
        sync.reconcile(self.store, self.client, project)
        with self.store.begin() as session:
            ids = [row.id for row in session.query(Task).filter_by(project_id=project).order_by(Task.id.desc())]
            row = Version(project_id=project, number=1, created_at=0, seconds=1, schema="", labels=0, metrics={})
            session.add(row)
        queue.enter(self.store, project, 1, [Planned(task, "ranked", 0.5, "Why.", RESULT) for task in ids])
        queue.push(self.store, self.client, project, 1)
        queue.flip(self.store, self.client, project, 1)
        return ids


def settings_of(server: Any, folder: Path, **more: Any) -> Settings:
    about = {"label_studio_url": server.url, "label_studio_token": server.token, "state_dir": folder}
    return Settings(**about | {"port": any_port(), "password": "a password"} | more)


@pytest.fixture
def house(label_studio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    house = House(settings_of(label_studio, tmp_path), monkeypatch)
    with serving(house.settings):
        yield house
    house.client.close()


def test_setup_dry_and_twice_and_disconnect(house: House, label_studio: Any) -> None:
    project = house.project("connecting", tasks=3)
    house.client.update_project(project, sampling="Uniform sampling")
    listed = house.run("setup")
    assert listed.exit_code == 1
    assert f"{project}  connecting" in listed.stdout and "--project" in listed.stderr
    before, url = house.shown(project), house.settings.url
    planned = house.changes("setup", "--project", str(project), "--dry-run")
    assert planned == [
        f"webhook: {url}/webhook added",
        f"ML backend: {url} added",
        f"sampling: Uniform sampling -> {SAMPLING}",
        f"backend: project {project} is looked after, connected by setup",
    ]
    assert house.shown(project) == before
    assert house.kept(project) is None

    assert house.changes("setup", "--project", str(project)) == planned
    kept = house.kept(project)
    assert kept is not None and (kept.connection, kept.title) == ("setup", "connecting")
    assert kept.created_at == house.client.project(project)["created_at"]
    connected = house.shown(project)
    assert connected[:3] == (SAMPLING, "", [(url, TITLE)])
    assert "nothing to change" in house.run("setup", "--project", str(project)).stdout
    assert house.changes("setup", "--project", str(project), "--dry-run") == []
    assert house.shown(project) == connected

    # What disconnecting has to leave: annotations and predictions. And what it has to end: a review and a job.
    ids = house.publish(project)
    call(label_studio.admin, "POST", f"/api/tasks/{ids[0]}/annotations/", json={"result": RESULT, "lead_time": 2.0})
    sync.reconcile(house.store, house.client, project)
    house.client.update_task(ids[0], overlap=2, is_labeled=False)
    with house.store.begin() as session:
        session.get_one(Task, (project, ids[0])).overlap_before = 1
        session.add(Job(project_id=project, kind="cycle", state="queued", created_at=0.0))
    before = house.shown(project)
    planned = house.changes("disconnect", "--project", str(project), "--dry-run")
    assert planned == [
        f"ML backend: {url} removed",
        f"webhook: {url}/webhook removed",
        f"sampling: {SAMPLING} -> Uniform sampling",
        f"model version: {queue_name(1)} -> none",
        "tasks: 1 that were held open for review are closed",
        f"backend: project {project} is looked after no more",
    ]
    assert house.shown(project) == before
    assert house.changes("disconnect", "--project", str(project)) == planned
    assert house.shown(project) == ("Uniform sampling", "", [], [])
    assert house.client.model_versions(project) == {queue_name(1): 3}
    task = next(row for page in house.client.tasks_by_id(project, ids[:1]) for row in page)
    assert (task["is_labeled"], task["overlap"], task["total_annotations"]) == (True, 1, 1)
    assert house.changes("disconnect", "--project", str(project)) == []
    with house.store.begin() as session:
        assert session.get_one(Project, project).connection == "none"
        assert session.query(Job).one().state == "failed"
        assert session.query(Annotation).count() == 1
        events = [row.event for row in session.query(Entry).order_by(Entry.seq)]
    assert [event for event in events if event in ("connected", "disconnected")] == ["connected", "disconnected"]

    # The worker leaves it alone, also at the end of a cycle that was running; setting it up again takes the published
    # order up where it was.
    worker = Worker(house.settings, house.store)
    worker.look_after_all()
    queue.flip(house.store, house.client, project, 1)
    assert house.shown(project) == ("Uniform sampling", "", [], [])
    assert f"model version: none -> {queue_name(1)}" in house.changes("setup", "--project", str(project))
    assert house.changes("setup", "--project", str(project)) == []


def test_polling_touches_neither_ml_backend_nor_webhook(house: House) -> None:
    project = house.project("polling", tasks=2)
    assert house.changes("setup", "--project", str(project), "--poll") == [
        f"sampling: Sequential sampling -> {SAMPLING}",
        f"backend: project {project} is looked after, connected by poll",
    ]
    assert house.changes("setup", "--project", str(project), "--poll") == []
    worker = Worker(house.settings, house.store)
    assert worker.look_after(project, False) == []
    with house.store.begin() as session:
        assert session.query(Task).filter_by(project_id=project).count() == 2
    assert house.shown(project) == (SAMPLING, "", [], [])
    house.changes("disconnect", "--project", str(project))
    assert house.shown(project)[0] == "Sequential sampling"


def test_the_worker_alarms_where_confidence_breaks_at_a_centre(house: House) -> None:
    project = house.project("centres", tasks=2)
    house.changes("setup", "--project", str(project), "--poll")
    worker = Worker(house.settings, house.store)
    row = {"site": "North", "n": 60, "confidence": 0.9, "right": 0.6, "broken": True}
    kept = {"control": "bom", "labels": "checked", "centres": [row, row | {"site": "South", "broken": False}]}
    save_json(worker.registry.version(project, 1) / "centres.json", kept)
    with house.store.begin() as session:
        told = {"schema": "", "labels": 2, "metrics": {}}
        session.add(Version(project_id=project, number=1, created_at=0.0, seconds=0.0, **told))
        session.get_one(Project, project).version = 1
    (alarm,) = worker.look_after(project, False)
    assert alarm.startswith("at North the confidence in bom does not hold: 90 % said, 60 % right")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_studio_token": ""}, "set SECOND_LOOK_LABEL_STUDIO_TOKEN to a personal access token"),
        ({"label_studio_token": "0" * 40}, "401"),
        ({"label_studio_token": "a.b.c"}, "does not accept the token (SECOND_LOOK_LABEL_STUDIO_TOKEN)"),
        ({"label_studio_url": "http://127.0.0.1:9"}, "SECOND_LOOK_LABEL_STUDIO_URL the address"),
        ({"ca_file": "/dev/null"}, "SECOND_LOOK_CA_FILE, /dev/null"),
    ],
)
def test_what_is_wrong_with_the_access_is_said(house: House, changes: dict[str, Any], message: str) -> None:
    values = Settings(**house.settings.model_dump() | changes)
    with stamina.set_testing(True):
        result = house.run("setup", "--project", "1", **{name: getattr(values, name) for name in changes})
    assert result.exit_code == 1
    assert message in result.stderr


def test_a_legacy_token_that_is_off_says_how_to_make_another(label_studio: Any) -> None:
    # The legacy token of the admin exists, as for every user; it is not accepted.
    legacy = call(label_studio.admin, "GET", "/api/current-user/token")["token"]
    client = Client(label_studio.url, legacy)
    with pytest.raises(LabelStudioError, match=r"legacy tokens.*Create a personal access token"):
        client.user()
    client.close()


def test_a_config_without_anything_to_learn_is_said_plainly(house: House) -> None:
    config = '<View><Image name="image" value="$image"/><TextArea name="text" toName="image"/></View>'
    project = house.project("nothing to learn", config=config)
    result = house.run("setup", "--project", str(project))
    assert result.exit_code == 1
    assert f"project {project}: nothing can be learnt with its label config" in result.stderr
    assert house.kept(project) is None and house.shown(project)[2:] == ([], [])


def alarms_of(house: House) -> float:
    text = Telemetry(house.settings, house.store).exposition().decode()
    family = next(one for one in text_string_to_metric_families(text) if one.name == "second_look_alarms")
    return sum(sample.value for sample in family.samples)


def test_what_an_admin_changes_is_repaired_once(house: House) -> None:
    project = house.project("guarded", tasks=3)
    house.changes("setup", "--project", str(project))
    house.publish(project)
    worker = Worker(house.settings, house.store)
    assert worker.look_after(project, False) == []
    connected = house.shown(project)
    assert connected[1] == queue_name(1)

    [hook] = house.client.webhooks(project)
    switched_off = {"headers": {}, "is_active": False, "send_for_all_actions": False}
    clicks: list[Callable[[], object]] = [
        lambda: house.client.update_project(project, sampling="Sequential sampling"),
        lambda: house.client.update_project(project, model_version=TITLE),
        lambda: house.client.save_webhook(switched_off, hook["id"]),
        lambda: house.client.delete_webhook(hook["id"]),
    ]
    # By a worker that was started without the backend's public address.
    worker.settings = house.settings.model_copy(update={"port": 1})
    for click in clicks:
        click()
        worker._look_after_or_alarm(project)
        kept = house.kept(project)
        assert kept is not None and len(kept.alarms) == 1, kept
        assert alarms_of(house) == 1
    assert house.shown(project) == connected
    worker._look_after_or_alarm(project)
    assert alarms_of(house) == 0
    with house.store.begin() as session:
        assert session.query(Entry).filter_by(project_id=project, event="repaired").count() == 2


def test_a_repair_that_is_refused_is_an_alarm_and_stops_nothing(house: House) -> None:
    project = house.project("not to be repaired")
    house.store.register_project(project, CONFIG, connection="setup")
    settings = house.settings.model_copy(update={"public_url": "http://backend:9090"})  # no address to Label Studio
    [alarm] = connection.guard(house.store, house.client, settings, project)
    assert alarm.startswith("the webhook cannot be repaired: ") and "SECOND_LOOK_PUBLIC_URL" in alarm


def test_a_webhook_by_hand_is_an_alarm_until_it_signs_in(house: House) -> None:
    project = house.project("by hand", tasks=1)
    body = {"project": project, "url": house.settings.url, "title": "Nodules", "auth_method": "BASIC_AUTH"}
    signed = {"basic_auth_user": house.settings.username, "basic_auth_pass": "a password"}
    house.client.add_ml_backend(body | signed)
    kept = house.kept(project)
    assert kept is not None and kept.connection == "hand"
    assert kept.created_at == house.client.project(project)["created_at"]
    worker = Worker(house.settings, house.store)
    for _ in range(2):
        [alarm] = worker.look_after(project, False)
        assert f"second-look setup --project {project}" in alarm
    [hook] = house.client.webhooks(project)
    house.client.save_webhook({"headers": house_headers(house)}, hook["id"])
    assert worker.look_after(project, False) == []
    house.client.delete_webhook(hook["id"])
    assert len(worker.look_after(project, False)) == 1
    house.changes("setup", "--project", str(project))
    assert worker.look_after(project, False) == []


def house_headers(house: House) -> dict[str, str]:
    return connection.connection_of(house.settings).headers


@pytest.fixture(scope="module")
def other(start_label_studio: Callable[..., Any]) -> Any:
    """A second Label Studio, which calls no ML backend at 127.0.0.2."""
    blocking = {"USE_DEFAULT_BANNED_SUBNETS": "false", "USER_ADDITIONAL_BANNED_SUBNETS": "127.0.0.2/32"}
    return start_label_studio(ML_BLOCK_LOCAL_IP="true", **blocking)


def test_blocked_addresses_leave_nothing_behind_and_are_explained(
    other: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(settings_of(other, tmp_path), monkeypatch)
    project = house.project("blocked")
    before = house.shown(project)
    result = house.run("setup", "--project", str(project), public_url="http://127.0.0.2:9090")
    assert result.exit_code == 1
    for hint in (
        "ML_BLOCK_LOCAL_IP=false",
        "SSRF_PROTECTION_ENABLED=false",
        "USER_ADDITIONAL_BANNED_SUBNETS",
        "--poll",
    ):
        assert hint in result.stderr
    assert house.shown(project) == before == ("Sequential sampling", "", [], [])
    kept = house.kept(project)
    assert kept is not None and kept.connection == "none"
    assert house.changes("setup", "--project", str(project), "--poll", public_url="http://127.0.0.2:9090")
    house.client.close()


def test_a_second_label_studio_is_refused(house: House, other: Any) -> None:
    ours, theirs = house.project("ours"), Client(other.url, other.token)
    house.changes("setup", "--project", str(ours))
    body = {"url": house.settings.url, "title": TITLE, "auth_method": "BASIC_AUTH"}
    body |= {"basic_auth_user": house.settings.username, "basic_auth_pass": "a password"}

    def attempt(number: int) -> None:
        with pytest.raises(LabelStudioError, match="409 Client Error: CONFLICT"):
            theirs.add_ml_backend(body | {"project": number})
        assert theirs.ml_backends(number) == []

    created = [
        call(other.admin, "POST", "/api/projects", json={"title": f"theirs {n}", "label_config": CONFIG})["id"]
        for n in range(3)
    ]
    unknown, known = sorted(set(created) - {ours})[:2]
    attempt(unknown)
    assert house.kept(unknown) is None
    house.store.register_project(known, CONFIG, created_at="2020-01-01T00:00:00Z")  # as if the two had counted alike
    attempt(known)
    # Neither do its tasks get answers, nor its events in.
    stamp = f"{ours}.1795277263"
    application = create_app(house.settings).test_client()
    headers = house_headers(house)
    for path, sent in (
        ("/predict", {"project": stamp, "tasks": []}),
        ("/webhook", {"action": "ANNOTATION_CREATED", "project": {"id": ours, "created_at": "2020-01-01T00:00:00Z"}}),
    ):
        answer = application.post(path, json=sent, headers=headers)
        assert answer.status_code == 409
        assert "One backend serves one Label Studio" in answer.get_json()["error"]
    theirs.close()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of something that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_label_studio_that_cannot_be_asked_in_time_is_checked_by_the_worker(
    other: Any, label_studio: Any, silent: str, tmp_path: Path
) -> None:
    assert 3.0 - PATIENCE > 1.0  # of the 3 s that Label Studio gives /setup
    settings = settings_of(label_studio, tmp_path)
    theirs = Client(other.url, other.token)
    number = call(other.admin, "POST", "/api/projects", json={"title": "unasked", "label_config": CONFIG})["id"]
    body = {"project": number, "url": settings.url, "title": TITLE, "auth_method": "BASIC_AUTH"}
    body |= {"basic_auth_user": settings.username, "basic_auth_pass": "a password"}
    with serving(settings.model_copy(update={"label_studio_url": silent})):
        theirs.add_ml_backend(body)
    worker = Worker(settings, Store.open(settings.database))
    worker._look_after_or_alarm(number)
    kept = worker.store.project(number)
    assert kept is not None and kept.synced_at is None
    [alarm] = kept.alarms
    assert "of another Label Studio" in alarm or "404" in alarm
    theirs.close()


def test_reconcile_reads_nothing_of_another_project(house: House) -> None:
    project = house.project("replaced", tasks=1)
    house.store.register_project(project, CONFIG, created_at="2020-01-01T00:00:00Z")
    with pytest.raises(OtherLabelStudio, match=f"project {project} .* made at 2020-01-01"):
        sync.reconcile(house.store, house.client, project)
    with house.store.begin() as session:
        assert session.query(Task).count() == 0
    assert house.run("setup", "--project", str(project)).exit_code == 1
    # Disconnecting looks after it no more, and touches nothing of the project that has its number.
    assert house.changes("disconnect", "--project", str(project)) == [
        f"backend: project {project} is looked after no more"
    ]
