"""Two projects on one backend: two web workers, two worker machines, state in PostgreSQL, jobs woken through Redis."""

import json
import shutil
import socket
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, select, text

from backend import connection, jobs
from backend.registry import Registry
from backend.settings import Settings
from backend.snapshot import Snapshot
from demo import labelstudio
from demo.labelstudio import call
from demo.oracle import Annotator, take_turns
from demo.phantoms import write_phantoms
from demo.stack import Service, Stack
from tasks import datafolder, ledger
from tasks.client import Client
from tasks.queue import queue_name
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Entry, Job, Project, Published, Task, Version

BOM = """<Choices name="bom" toName="image" required="true" model_weight="0.9" model_current="$bom">
    <Choice value="benign"/><Choice value="malignant"/>
  </Choices>"""
CONFIG = f"""<View>
  <Image name="image" value="$image" model_group="$patient"/>
  <TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/>
  {BOM}%s
</View>"""
SHAPE = """<Choices name="shape" toName="image" required="true" model_weight="0.1" model_current="$shape">
    <Choice value="wider"/><Choice value="taller"/>
  </Choices>"""
SHARED = {
    "POLL_SECONDS": "600",  # whatever is noticed is noticed because the web workers rang
    "WEB_WORKERS": "2",
    "PASSWORD": "a password of the backend",
    "LOG_FORMAT": "json",
}


@dataclass
class Ours:
    """One project of the two: its number, what it learns, and what is true of its images."""

    number: int
    heads: set[str]
    read: datafolder.DataFolder


@dataclass
class Machines:
    """Everything that runs."""

    stack: Stack
    label_studio: Any
    settings: Settings
    store: Store
    projects: list[Ours]

    def rows(self, table: type[Any], project: int, *order: Any) -> list[Any]:
        with self.store.begin() as session:
            return list(session.scalars(select(table).where(table.project_id == project).order_by(*order)))

    def published(self, project: Ours) -> int | None:
        """The version that Label Studio serves, if no job waits or runs."""
        remote = call(self.label_studio.admin, "GET", f"/api/projects/{project.number}")["model_version"]
        known = self.store.project(project.number)
        busy = any(job.state in ("queued", "running") for job in self.rows(Job, project.number))
        assert known is not None
        return None if busy or remote != queue_name(known.published or 0) else known.published

    def predict(self, project: Ours) -> set[str]:
        """The versions under which /predict answers, asked about five tasks of the project."""
        tasks = [{"id": row.id, "data": row.data} for row in self.rows(Task, project.number, Task.id)[:5]]
        secret = self.settings.password.get_secret_value()
        body = {"tasks": tasks, "project": project.number, "label_config": "", "params": {}}
        answer = httpx.post(
            f"{self.settings.url}/predict", json=body, auth=(self.settings.username, secret), timeout=60
        )
        assert answer.status_code == 200, answer.text
        results = answer.json()["results"]
        assert len(results) == 5
        return {result["model_version"] for result in results}

    def cut_off_database(self) -> None:
        """Every connection breaks, as when PostgreSQL restarts."""
        engine = create_engine(self.settings.database)
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with engine.connect() as connection:
            connection.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))
        engine.dispose()

    def logged(self, name: str, event: str) -> list[dict[str, Any]]:
        lines = (self.stack.folder / "logs" / f"{name}.log").read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["event"] == event]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis(folder: Path, port: int) -> Service:
    program = shutil.which("redis-server")
    if program is None:
        pytest.fail("these tests need Redis: apt-get install redis-server")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]

    def ready() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return Service("redis", [program, *options], {}, ready)


@pytest.fixture
def machines(
    label_studio: Any,
    postgresql: Callable[[], str],
    tiny: Callable[..., tuple[Settings, dict[str, str]]],
    make_project: Callable[..., int],
    tmp_path: Path,
) -> Iterator[Machines]:
    """Both projects are connected; Redis, the web workers and the machines `north` and `south` run."""
    projects = []
    for images, seed, more in ((40, 5, ""), (44, 7, SHAPE)):
        folder = label_studio.document_root / f"machines-{seed}"
        write_phantoms(folder, images, seed)
        config = CONFIG % more
        schema = parse_label_config(config)
        read = datafolder.read(folder, schema, labelstudio.config_fields(config))
        number = make_project(f"machines, seed {seed}", config, folder, read.task_data())
        projects.append(Ours(number, {head.name for head in schema.heads}, read))
    with Stack(tmp_path / "machines") as stack:
        port = free_port()
        stack.start(redis(stack.folder, port))
        own = {
            "LABEL_STUDIO_URL": label_studio.url,
            "LABEL_STUDIO_TOKEN": label_studio.token,
            "STATE_DIR": str(stack.folder / "state"),
            "DATABASE_URL": postgresql(),
            "REDIS_URL": f"redis://127.0.0.1:{port}/0",
            "PORT": str(free_port()),
        }
        settings, environment = tiny(**SHARED, **own)
        environment["OMP_NUM_THREADS"] = "1"
        program = str(Path(sys.executable).parent / "second-look")
        stack.start(Service("web", [program, "serve"], environment, lambda: healthy(settings)))
        store = Store.open(settings.database)
        client = Client(label_studio.url, label_studio.token)
        for project in projects:
            with store.turn(project.number):
                connection.set_up(store, client, settings, project.number)
        client.close()
        for name in ("north", "south"):
            script = str(Path(__file__).with_name("machine.py"))
            stack.start(Service(name, [sys.executable, script, name], environment, None))
        yield Machines(stack, label_studio, settings, store, projects)
        store.engine.dispose()


def healthy(settings: Settings) -> bool:
    try:
        return httpx.get(f"{settings.url}/health", timeout=2.0).status_code == 200
    except httpx.TransportError:
        return False


def test_two_projects_two_web_workers_and_two_machines(machines: Machines, until: Callable[..., None]) -> None:
    one, other = machines.projects
    until(lambda: [machines.published(project) for project in machines.projects] == [1, 1])
    both_web_workers_answer(machines, until, one, 1)
    both_web_workers_answer(machines, until, other, 1)

    # Annotators work in both; a press on "Start training" reaches a machine through the web workers and Redis.
    for project in machines.projects:
        annotate(machines, project, 4)
    labelstudio.start_training(machines.label_studio.admin, other.number)
    machines.cut_off_database()
    until(lambda: machines.published(other) == 2)
    both_web_workers_answer(machines, until, other, 2)
    assert machines.predict(one) == {"v1-live"}
    machines.stack.check()  # nobody died of it

    # The machine that trains and the web workers die at once; the other machine goes on when the lease is over.
    labelstudio.start_training(machines.label_studio.admin, one.number)
    seen: list[str] = []
    until(lambda: seen.extend(trainers(machines, one)) or seen)
    machines.stack.kill("web")
    machines.stack.kill(seen[0])
    served = annotate(machines, one, 2)  # as before, and nobody hears of it now
    assert served == [queue_name(1)] * 2
    machines.stack.restart("web")
    until(lambda: machines.published(one) == 2)
    both_web_workers_answer(machines, until, one, 2)
    machines.stack.restart(seen[0])
    jobs.Bell(machines.settings).ring(one.number)
    until(lambda: len(machines.rows(Annotation, one.number)) == 6)

    for project in machines.projects:
        assert_whole(machines, project)
    ran = defaultdict(set)
    for name in ("north", "south"):
        for line in machines.logged(name, "cycle"):
            ran[line["project"], line["version"]].add(name)
    assert {len(names) for cycle, names in ran.items() if cycle != (one.number, 2)} == {1}
    assert machines.logged("north", "worker started") and machines.logged("south", "worker started")


def trainers(machines: Machines, project: Ours) -> list[str]:
    """The machine that works on the project's job."""
    return [job.owner.split(":")[0] for job in machines.rows(Job, project.number) if job.state == "running"]


def annotate(machines: Machines, project: Ours, count: int) -> list[str | None]:
    """Two people, in turn, as the queue serves them; returns the versions that it was ordered by."""
    sessions = (machines.label_studio.admin, machines.label_studio.annotator)
    people = [Annotator(session, project.number, project.read.schema, str(n)) for n, session in enumerate(sessions)]
    visits = list(take_turns(people, project.read.truth, count))
    assert len(visits) == count
    return [visit.version for visit in visits]


def both_web_workers_answer(machines: Machines, until: Callable[..., None], project: Ours, version: int) -> None:
    """Each process says so when it loads a version; neither was started anew for it."""

    def loaded() -> bool:
        assert machines.predict(project) == {f"v{version}-live"}
        lines = machines.logged("web", "model loaded")
        return len([line for line in lines if (line["project"], line["version"]) == (project.number, version)]) >= 2

    until(loaded)


def assert_whole(machines: Machines, project: Ours) -> None:
    """Nothing is there twice, and nothing is the other project's."""
    there = {task["id"] for task in labelstudio.list_tasks(machines.label_studio.admin, project.number)}
    assert {task.id for task in machines.rows(Task, project.number)} == there
    registry = Registry(machines.settings.state_dir)
    versions = machines.rows(Version, project.number, Version.number)
    assert [version.number for version in versions] == [1, 2]
    for version in versions:
        assert set(version.metrics) <= project.heads and "bom" in version.metrics
        snapshot = Snapshot.load(registry.version(project.number, version.number) / "snapshot.npz")
        assert set(snapshot.ids.tolist()) <= there and set(snapshot.targets) == project.heads

    rows = machines.rows(Published, project.number, Published.version, Published.task_id)
    found = call(machines.label_studio.admin, "GET", "/api/predictions", params={"project": project.number})
    assert sorted((row["model_version"], row["task"], row["id"]) for row in found) == sorted(
        (queue_name(row.version), row.task_id, row.prediction_id) for row in rows
    )
    assert {row.task_id for row in rows} <= there

    with machines.store.begin() as session:
        assert ledger.verify(session, project.number) == []
        known = session.get_one(Project, project.number)
        assert (known.version, known.published) == (2, 2)
    entries = machines.rows(Entry, project.number, Entry.seq)
    created = [entry.annotation_id for entry in entries if entry.event == "created"]
    assert sorted(created) == sorted(row.id for row in machines.rows(Annotation, project.number))
    assert {entry.task_id for entry in entries if entry.task_id is not None} <= there
    for event in ("trained", "published"):
        assert [entry.body["version"] for entry in entries if entry.event == event] == [1, 2]
    assert [(job.state, job.version) for job in machines.rows(Job, project.number, Job.id)] == [
        ("done", 1),
        ("done", 2),
    ]
