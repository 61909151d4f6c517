"""The doctor on real Label Studios, each put into the state that a check is for; then mended, and clean again."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete
from typer.testing import CliRunner
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from backend import connection, jobs
from backend import settings as chosen
from backend.app import create_app
from backend.cli import app
from backend.doctor import CHECKS, examine
from backend.doctor.findings import Finding
from backend.doctor.gather import gather
from backend.doctor.observed import BULK_FLAG
from backend.doctor.server import bulk_import
from backend.settings import Settings
from demo import labelstudio
from demo.labelstudio import call
from demo.oracle import Annotator, take_turns
from demo.ports import any_port
from tasks import queue, sync
from tasks.client import Client
from tasks.project import TITLE
from tasks.queue import Planned
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Heartbeat, Job, Project, Task, Version

CONFIG = """<View>
  <Image name="image" value="$image"/>
  <TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/>
  <Choices name="bom" toName="image" required="true"><Choice value="benign"/><Choice value="malignant"/></Choices>
</View>"""
SCHEMA = parse_label_config(CONFIG)
RESULT = [{"id": "b", "from_name": "bom", "to_name": "image", "type": "choices", "value": {"choices": ["benign"]}}]


@contextmanager
def serving(application: Any, port: int) -> Iterator[str]:
    server = make_server("127.0.0.1", port, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Clinic:
    """One Label Studio with a backend of ours, whose worker is this test."""

    label_studio: Any
    settings: Settings
    store: Store
    client: Client

    @property
    def admin(self) -> httpx.Client:
        return self.label_studio.admin

    def project(self, title: str, tasks: int, published: int, *, connect: bool = True) -> int:
        """A project whose last `published` tasks are the order, last first."""
        number = labelstudio.create_project(self.admin, title, CONFIG)["id"]
        call(self.admin, "POST", f"/api/projects/{number}/import", json=[{"image": f"/{n}.png"} for n in range(tasks)])
        if connect:
            self.set_up(number)
            sync.reconcile(self.store, self.client, number)
            self.publish(number, published)
        return number

    def publish(self, project: int, published: int) -> None:
        with self.store.begin() as session:
            rows = session.query(Task).filter_by(project_id=project).order_by(Task.id.desc()).all()
            for row in rows:
                row.pixels, row.image_error = "digest", None
            metrics: dict[str, Any] = {"project_id": project, "number": 1, "created_at": 0, "seconds": 1, "metrics": {}}
            session.add(Version(**metrics, schema="", labels=0))
        plan = [Planned(row.id, "ranked", 0.5, "Why.", RESULT) for row in rows[:published]]
        queue.enter(self.store, project, 1, plan)
        queue.push(self.store, self.client, project, 1)
        queue.flip(self.store, self.client, project, 1)

    def set_up(self, project: int, **changes: Any) -> list[str]:
        return connection.set_up(self.store, self.client, self.settings.model_copy(update=changes), project)

    def findings(self, project: int | None, **changes: Any) -> list[Finding]:
        return examine(self.settings.model_copy(update=changes), project).findings

    def names(self, project: int | None, **changes: Any) -> list[str]:
        return [finding.check for finding in self.findings(project, **changes)]

    def change(self, project: int, **fields: Any) -> None:
        """In the project's row of the store."""
        with self.store.begin() as session:
            for name, value in fields.items():
                setattr(session.get_one(Project, project), name, value)

    def annotators(self, project: int) -> list[Annotator]:
        sessions = (self.admin, self.label_studio.annotator)
        return [Annotator(session, project, SCHEMA, str(place)) for place, session in enumerate(sessions)]


@contextmanager
def opened(label_studio: Any, folder: Path) -> Iterator[Clinic]:
    port = any_port()
    settings = Settings(
        label_studio_url=label_studio.url,
        label_studio_token=label_studio.token,
        state_dir=folder,
        port=port,
        password="a password",
        weights="scratch",
        task_lock_hours=0.5,
    )
    client, store = Client(label_studio.url, label_studio.token), Store.open(settings.database)
    with serving(create_app(settings), port):
        yield Clinic(label_studio, settings, store, client)
    client.close()


@pytest.fixture(scope="module")
def clinic(label_studio: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    with opened(label_studio, tmp_path_factory.mktemp("doctor")) as clinic:
        yield clinic


@pytest.fixture(scope="module")
def project(clinic: Clinic) -> int:
    """A project with nothing to find; whoever makes something to find mends it."""
    return clinic.project("doctor", 12, 10)


@pytest.fixture(autouse=True)
def worker(clinic: Clinic, request: pytest.FixtureRequest) -> None:
    jobs.renew(clinic.store, "this-test:1:0")
    if "project" in request.fixturenames:
        clinic.change(request.getfixturevalue("project"), synced_at=time.time())


def hook(clinic: Clinic, project: int) -> dict[str, Any]:
    return next(row for row in clinic.client.webhooks(project) if row["url"] == f"{clinic.settings.url}/webhook")


def backend(clinic: Clinic, project: int) -> dict[str, Any]:
    return next(row for row in clinic.client.ml_backends(project) if row["url"] == clinic.settings.url)


def body(clinic: Clinic, project: int, **more: Any) -> dict[str, Any]:
    password = clinic.settings.password.get_secret_value()
    auth = {"auth_method": "BASIC_AUTH", "basic_auth_user": clinic.settings.username, "basic_auth_pass": password}
    return {"project": project, "url": clinic.settings.url, "title": TITLE, **auth, **more}


def test_a_project_that_was_just_set_up_is_clean(clinic: Clinic, project: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*more: str) -> Any:
        return CliRunner().invoke(app, ["doctor", *more])

    def untouched() -> Any:
        return clinic.client.project(project), clinic.client.webhooks(project)

    before = untouched()
    monkeypatch.setattr(chosen, "settings", lambda: clinic.settings)
    printed = look()
    assert printed.exit_code == 0
    assert f"All {len(CHECKS)} checks passed: {', '.join(CHECKS)}." in " ".join(printed.stdout.split())
    assert untouched() == before

    clinic.client.update_project(project, sampling="Sequential sampling")
    printed = look("--json")
    assert printed.exit_code == 1
    value = json.loads(printed.stdout)
    (found,) = value["findings"]
    assert (found["check"], found["project"], found["severity"]) == ("sampling", project, "error")
    assert "'Sequential sampling'" in found["what"]
    assert found["mend"].startswith(f"second-look setup --project {project}")
    assert set(value["passed"]) == set(CHECKS) - {"sampling"}
    told = look().stdout
    assert f"error sampling, project {project}: " in told
    assert "mend: second-look setup" in told
    clinic.set_up(project)


def title_is_version(c: Clinic, project: int) -> None:
    c.client.update_project(project, model_version=TITLE)


def version_is_title(c: Clinic, project: int) -> None:
    c.client.update_ml_backend(backend(c, project)["id"], body(c, project, title="v1-queue-order"))


def stale_version(c: Clinic, project: int) -> None:
    task = call(c.admin, "GET", "/api/tasks", params={"project": project, "page_size": 1})["tasks"][0]["id"]
    c.client.import_predictions(project, [{"task": task, "result": RESULT, "score": 0.5, "model_version": "v0"}])
    c.client.update_project(project, model_version="v0")


def hook_off(c: Clinic, project: int) -> None:
    c.client.save_webhook({"url": hook(c, project)["url"], "is_active": False}, hook(c, project)["id"])


def hook_unsigned(c: Clinic, project: int) -> None:
    c.client.save_webhook({"url": hook(c, project)["url"], "headers": {}}, hook(c, project)["id"])


def hook_narrowed(c: Clinic, project: int) -> None:
    c.client.save_webhook(
        {"url": hook(c, project)["url"], "send_for_all_actions": False, "actions": ["TASKS_CREATED"]},
        hook(c, project)["id"],
    )


def hook_gone(c: Clinic, project: int) -> None:
    c.client.delete_webhook(hook(c, project)["id"])


def hook_twice(c: Clinic, project: int) -> None:
    c.client.save_webhook({"project": project, "url": hook(c, project)["url"], "send_for_all_actions": True})


def backend_gone(c: Clinic, project: int) -> None:
    c.client.delete_ml_backend(backend(c, project)["id"])


def backend_twice(c: Clinic, project: int) -> None:
    c.client.add_ml_backend(body(c, project, title="Nodules"))


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        ((title_is_version, hook_off), {"title": "the project's version is 'Second Look'", "webhook": "switched off"}),
        (
            (version_is_title, hook_unsigned),
            {"title": "is the name of the published version", "webhook": "no valid authorization"},
        ),
        (
            (stale_version, hook_narrowed),
            {"model-version": "is v0, the published one v1-queue-order", "webhook": "send_for_all_actions False"},
        ),
        ((backend_twice, hook_gone), {"orphan-ml-backend": "'Nodules'", "webhook": "has no webhook to"}),
        ((backend_gone, hook_twice), {"ml-backend": "has no ML backend at", "orphan-webhook": "once more"}),
    ],
)
def test_what_setup_mends(
    clinic: Clinic, project: int, make: Sequence[Callable[[Clinic, int], None]], seen: dict[str, str]
) -> None:
    for change in make:
        change(clinic, project)
    found = {finding.check: finding for finding in clinic.findings(project)}  # what the test before made is mended
    assert set(found) == set(seen)
    assert [check for check, words in seen.items() if words not in found[check].what] == []
    clinic.set_up(project)


def test_a_backend_that_moved_away_and_what_it_left(clinic: Clinic, project: int) -> None:
    with serving(create_app(clinic.settings), any_port()) as elsewhere:
        clinic.set_up(project, public_url=elsewhere)
        other = clinic.client.add_ml_backend(body(clinic, project, url=elsewhere, title="Other"))
    found = {finding.check: finding for finding in clinic.findings(project)}
    assert set(found) == {"ml-backend", "orphan-ml-backend"}
    assert "Disconnected" in found["ml-backend"].what
    clinic.set_up(project)
    # The other one, for which nobody answers; and Label Studio keeps the webhook of an ML backend that is gone.
    gone = "http://127.0.0.1:9/webhook"
    clinic.client.save_webhook({"project": project, "url": gone})
    found = {finding.check: finding for finding in clinic.findings(project)}
    assert set(found) == {"orphan-ml-backend", "orphan-webhook"}
    assert f"/api/ml/{other['id']}" in found["orphan-ml-backend"].mend
    number = next(row["id"] for row in clinic.client.webhooks(project) if row["url"] == gone)
    assert f"/api/webhooks/{number}/" in found["orphan-webhook"].mend
    clinic.client.delete_webhook(number)
    clinic.client.delete_ml_backend(other["id"])


def test_what_an_admin_changed_in_the_project(clinic: Clinic, project: int) -> None:
    clinic.client.delete_version(project, "v1-queue-order")
    assert "10 of 10 predictions" in {found.check: found.what for found in clinic.findings(project)}["predictions"]
    queue.guard(clinic.store, clinic.client, project)
    clinic.client.update_project(project, show_collab_predictions=False, maximum_annotations=2, show_overlap_first=True)
    assert {"predictions-shown", "overlap"} <= set(clinic.names(project))
    clinic.client.update_project(project, show_collab_predictions=True, maximum_annotations=1, show_overlap_first=False)
    clinic.set_up(project)


def test_label_configs(clinic: Clinic, project: int) -> None:
    loose = """<View><Image name="image" value="$image"/><TextArea name="remark" toName="image"/>
      <Choices name="bom" toName="image"><Choice value="benign"/><Choice value="malignant"/></Choices></View>"""
    clinic.client.update_project(project, label_config=loose)
    found = {finding.check: finding for finding in clinic.findings(project)}
    assert set(found) == {"left-alone", "required", "why"}
    assert {finding.severity for finding in found.values()} == {"warning"}
    assert "'remark'" in found["left-alone"].what
    assert "'bom'" in found["required"].what
    nothing = '<View><Image name="image" value="$image"/><TextArea name="remark" toName="image"/></View>'
    clinic.client.update_project(project, label_config=nothing)
    found = {finding.check: finding for finding in clinic.findings(project)}
    assert found["label-config"].severity == "error"
    assert "refuses the project" in found["ml-backend"].what
    assert not found["why"].carried_out
    clinic.client.update_project(project, label_config=CONFIG)


def test_what_the_store_tells(clinic: Clinic, project: int) -> None:
    def job(state: str) -> None:
        with clinic.store.begin() as session:
            session.add(
                Job(project_id=project, kind="cycle", state=state, created_at=0, step="embedding", error="Boom")
            )

    def unusable(**images: str | None) -> None:
        with clinic.store.begin() as session:
            session.query(Task).filter_by(project_id=project).first().image_error = images["error"]

    job("failed")
    unusable(error="it is no image")
    clinic.change(project, synced_at=time.time() - 3600, alarms=["An alarm."], extra_params={"batch_size": -1})
    found = {finding.check: finding for finding in clinic.findings(project)}
    assert set(found) == {"extra-parameters", "reconcile", "job", "alarms", "images"}
    assert "Boom" in found["job"].what
    assert "60 minutes ago" in found["reconcile"].what
    assert "batch_size" in found["extra-parameters"].what
    assert (found["images"].severity, "1 of 12" in found["images"].what) == ("warning", True)
    job("done")
    unusable(error=None)
    clinic.change(project, synced_at=time.time(), alarms=[], extra_params={}, published=None)
    with clinic.store.begin() as session:
        session.execute(delete(Heartbeat))
    assert [(found.check, found.project) for found in clinic.findings(project)] == [
        ("worker", None),
        ("published", project),
    ]
    clinic.change(project, published=1)


def test_the_project_of_another_label_studio(clinic: Clinic, project: int) -> None:
    clinic.change(project, created_at="2020-01-01T00:00:00Z")
    assert clinic.names(project) == ["project", "ml-backend"]  # whose /setup is refused by the backend, too
    clinic.change(project, created_at=None)


def answered(clinic: Clinic, number: int, annotators: list[Annotator], count: int) -> list[Any]:
    """Let the annotators answer; tasks here carry no `file`, so that one truth serves all."""
    visits = list(take_turns(annotators, {"": {"bom": ("benign",)}}, count))
    sync.reconcile(clinic.store, clinic.client, number)
    return visits


def test_the_order_two_annotators_were_served_and_a_head_run_low(clinic: Clinic) -> None:
    number = clinic.project("doctor: order", 24, 21)
    visits = answered(clinic, number, clinic.annotators(number), 17)
    assert [visit.version for visit in visits] == ["v1-queue-order"] * 17
    found = {finding.check: finding for finding in clinic.findings(number)}
    assert set(found) == {"head", "database"}  # two annotators on SQLite; four tasks left of the order, three beyond it
    assert found["head"].severity == "error"
    assert "2 annotators share" in found["database"].what


def test_an_order_that_members_of_the_project_turned_random(clinic: Clinic) -> None:
    number = clinic.project("doctor: members", 30, 30)
    # Nothing of Label Studio's API makes such rows; an upgrade or a script may have.
    with sqlite3.connect(clinic.label_studio.folder / "label-studio" / "label_studio.sqlite3", timeout=30) as database:
        for user in (1, 2):
            database.execute(
                "INSERT INTO projects_projectmember (user_id, project_id, enabled, created_at, updated_at)"
                " VALUES (?, ?, 1, '2026-01-01', '2026-01-01')",
                (user, number),
            )
    answered(clinic, number, clinic.annotators(number)[:1], 16)
    found = {finding.check: finding for finding in clinic.findings(number)}
    assert set(found) == {"served-order"}
    assert "Spearman" in found["served-order"].what
    assert f"ProjectMember.objects.filter(project={number}).delete()" in found["served-order"].mend


def test_annotators_who_leave_the_order_aside(clinic: Clinic) -> None:
    number = clinic.project("doctor: aside", 20, 8)
    tasks = sorted(row["id"] for row in labelstudio.list_tasks(clinic.admin, number))
    for task in tasks[:10]:  # as after "Label Tasks As Displayed": no prediction came with them
        answer = {"result": RESULT, "lead_time": 0.01, "project": str(number)}
        call(clinic.admin, "POST", f"/api/tasks/{task}/annotations/", params={"project": number}, json=answer)
    sync.reconcile(clinic.store, clinic.client, number)
    (found,) = clinic.findings(number)
    assert found.check == "served-outside"
    assert "10 of the last 10" in found.what


def test_a_project_that_is_not_there(clinic: Clinic) -> None:
    found = [finding for finding in clinic.findings(987654) if finding.carried_out]
    assert [(finding.check, finding.project) for finding in found] == [("project", 987654)] * 2
    assert found[0].mend == "second-look setup --project 987654"
    gone = clinic.project("doctor: gone", 1, 1)
    call(clinic.admin, "DELETE", f"/api/projects/{gone}/")
    errors = [finding for finding in clinic.findings(gone) if finding.severity == "error"]
    assert [finding.check for finding in errors] == ["project"]
    clinic.change(gone, connection="none")


def redirect(address: str) -> Any:
    return lambda environ, start: Response(status=301, headers={"Location": f"{address}/health"})(environ, start)


def test_addresses_and_tokens(clinic: Clinic, project: int) -> None:
    def address(url: str) -> str:
        found = clinic.findings(project, label_studio_url=url)
        (error,) = [finding for finding in found if finding.severity == "error"]
        assert error.check == "label-studio-address"
        assert all("not checked" in finding.what for finding in found if finding is not error)
        return error.what

    assert "does not answer" in address(f"http://127.0.0.1:{any_port()}")
    assert "that is not Label Studio" in address(clinic.settings.url)  # our own
    with serving(redirect("https://labels.example.org"), any_port()) as proxy:
        assert "redirects to https://labels.example.org/health" in address(proxy)

    legacy = call(clinic.admin, "GET", "/api/current-user/token")["token"]
    for token, said in (
        ("", "no token is set"),
        ("x.y.z", "does not accept the token"),
        ("f" * 40, "Invalid token"),
        (legacy, "legacy token"),
    ):
        secret = type(clinic.settings.label_studio_token)(token)
        found = clinic.findings(project, label_studio_token=secret)
        (error,) = [finding for finding in found if finding.severity == "error"]
        assert (error.check, said in error.what) == ("token", True)
        assert "SECOND_LOOK_LABEL_STUDIO_TOKEN" in error.mend


def test_a_store_that_cannot_be_opened(clinic: Clinic, project: int) -> None:
    found = clinic.findings(project, database_url="sqlite:////proc/second-look/store.db")
    assert [finding.check for finding in found if finding.severity == "error"] == ["store"]


def test_what_label_studio_blocks_and_how_it_was_started(
    start_label_studio: Callable[..., Any], tmp_path: Path
) -> None:
    shut = start_label_studio(
        ML_BLOCK_LOCAL_IP="true",
        SSRF_PROTECTION_ENABLED="true",
        TASK_LOCK_TTL="86400",
        fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short="false",
    )
    with opened(shut, tmp_path) as clinic:
        jobs.renew(clinic.store, "this-test:1:0")
        number = clinic.project("doctor: shut", 1, 0, connect=False)
        found = {finding.check: finding for finding in clinic.findings(number) if finding.carried_out}
        assert set(found) == {
            *("ml-address-blocked", "webhook-address-blocked", "task-lock", "store"),
            *("project", "ml-backend", "webhook", "sampling"),
        }
        assert "127.0.0.0/8" in found["ml-address-blocked"].what
        assert "ML_BLOCK_LOCAL_IP=false" in found["ml-address-blocked"].mend
        assert "SSRF_PROTECTION_ENABLED=false" in found["webhook-address-blocked"].mend
        (small,) = gather(clinic.settings, number)[1]
        assert list(bulk_import(small)) == []
        assert small.backend.flags[BULK_FLAG] is False
        (slow,) = bulk_import(replace(small, remote=small.remote | {"task_number": 120_000}))
        assert "120000 tasks" in slow.what
        locks = [finding for finding in clinic.findings(number) if finding.check == "task-lock"]
        assert [finding.severity for finding in locks] == ["error", "warning"]  # too short a setting, too long a lock
        assert [f.severity for f in clinic.findings(number, task_lock_hours=24.0) if f.check == "task-lock"] == [
            "warning"
        ]
        unknown = clinic.findings(number, public_url="http://second-look.invalid:9090")
        told = {finding.check: finding.what for finding in unknown if finding.carried_out}
        assert "resolve" in told["ml-address-blocked"]
        assert clinic.client.ml_backends(number) == clinic.client.webhooks(number) == []  # asking has left nothing


def test_half_of_the_fix_leaves_an_ml_backend(start_label_studio: Callable[..., Any], tmp_path: Path) -> None:
    half = start_label_studio(SSRF_PROTECTION_ENABLED="true")
    with opened(half, tmp_path) as clinic:
        jobs.renew(clinic.store, "this-test:1:0")
        number = clinic.project("doctor: half", 1, 0, connect=False)
        # As an admin would by hand, in Settings, Model: it is refused, and stays.
        assert clinic.admin.post("/api/ml", json=body(clinic, number)).status_code == 403
        errors = {finding.check for finding in clinic.findings(number) if finding.severity == "error"}
        assert errors == {"webhook-address-blocked", "half-connected", "webhook", "sampling"}
        (row,) = clinic.client.ml_backends(number)
        (found,) = [finding for finding in clinic.findings(number) if finding.check == "half-connected"]
        assert f"DELETE /api/ml/{row['id']}" in found.mend
        clinic.client.delete_ml_backend(row["id"])
        connection.set_up(clinic.store, clinic.client, clinic.settings, number, poll=True)
        assert [finding.check for finding in clinic.findings(number) if finding.severity == "error"] == []
