"""kill -9 at every step of a cycle: what comes out is what comes out of a cycle that nobody killed."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from backend import jobs
from backend.registry import Registry, load_arrays, load_json
from backend.settings import Settings
from demo import labelstudio
from demo.labelstudio import call
from demo.phantoms import write_phantoms
from tasks import datafolder, ledger
from tasks.codec import encode_labels
from tasks.queue import queue_name
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Entry, Job, Project, Published, Task, Version

MORTAL = Path(__file__).with_name("mortal_worker.py")
CONFIG = """<View>
  <Image name="image" value="$image" model_group="$patient"/>
  <TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/>
  <Choices name="bom" toName="image" required="true" model_weight="0.9" model_current="$bom">
    <Choice value="benign"/><Choice value="malignant"/>
  </Choices>
  <Choices name="foci" toName="image" choice="multiple" model_weight="0.1" model_current="$foci">
    <Choice value="none"/><Choice value="macrocalcifications"/><Choice value="peripheral"/><Choice value="punctate"/>
  </Choices>
</View>"""
SCHEMA = parse_label_config(CONFIG)
# Whatever else a cycle does: it is killed when these files have got their names, after these commits, while Label
# Studio works on these changes, and when it has answered. (An import is not answered any more: it is found there.)
STEPS = {
    "file versions/snapshot.npz",
    "file versions/backbones.json",
    "file backbones/backbone-0.safetensors",
    "file backbones/backbone-1.safetensors",
    "file backbones/embeddings-1-0000.npz",
    "file backbones/made.json",
    "file versions/heads.safetensors",
    "file versions/predictions.npz",
    "file versions/model.json",
    "commit next_version",
    "commit enter",
    "commit push",
    "commit flip",
    "commit finish",
    "sent POST /api/projects/*/import/predictions",
    "sent PATCH /api/projects/*/",
    "answered PATCH /api/projects/*/",
}


@dataclass
class Place:
    """A project of the shared Label Studio with a store and a state folder of its own."""

    label_studio: Any
    project: int
    settings: Settings
    store: Store
    environment: dict[str, str]

    @property
    def registry(self) -> Registry:
        return Registry(self.settings.state_dir)

    def live(self, process: subprocess.Popen[str], known: list[str]) -> str | None:
        """Let the worker live until it dies at a step that is not known, or has nothing left to do."""
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"environment": self.environment, "known": known}) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, "the worker failed: see its log above"
        step: str | None = json.loads(answer)
        return step

    def copy_of_store(self) -> Path:
        copy = self.settings.state_dir / "backup.db"
        with self.store.engine.connect() as connection:
            connection.exec_driver_sql(f"VACUUM INTO '{copy}'")
        return copy

    def restore(self, copy: Path) -> None:
        self.store.engine.dispose()
        path = Path(self.store.engine.url.database or "")
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        copy.replace(path)

    def job(self, number: int) -> Job | None:
        with self.store.begin() as session:
            return session.get(Job, number)

    def rows(self, table: type[Any], *order: Any) -> list[Any]:
        with self.store.begin() as session:
            return list(session.scalars(select(table).where(table.project_id == self.project).order_by(*order)))

    def annotate(self, count: int) -> None:
        """The first open tasks of the published order get answers that their files alone decide."""
        with self.store.begin() as session:
            published = session.get_one(Project, self.project).published
        for row in self.open_rows(published)[:count]:
            self.submit(row)

    def submit_shown_by(self, version: int) -> None:
        """Somebody submits what an earlier version showed."""
        self.submit(self.open_rows(version)[0])

    def open_rows(self, version: int | None) -> list[Published]:
        done = {row.task_id for row in self.rows(Annotation, Annotation.id)}
        rows = self.rows(Published, Published.rank)
        return [row for row in rows if row.version == version and row.task_id not in done]

    def submit(self, row: Published) -> None:
        odd = hashlib.sha256(self.files()[row.task_id].encode()).digest()[0] % 2
        labels = {"bom": ("malignant" if odd else "benign",), "foci": ("none",)}
        body = {"result": encode_labels(SCHEMA, labels), "parent_prediction": row.prediction_id, "lead_time": 5.0}
        path, query = f"/api/tasks/{row.task_id}/annotations/", {"project": self.project}
        call(self.label_studio.admin, "POST", path, params=query, json=body | {"project": str(self.project)})

    def ring(self) -> None:
        """As the webhook does."""
        jobs.Bell(self.settings).ring(self.project)

    def files(self) -> dict[int, str]:
        return {task.id: task.data["file"] for task in self.rows(Task, Task.id)}

    def predictions(self) -> list[tuple[str, int, int]]:
        """Label Studio's: version, task, number."""
        found = call(self.label_studio.admin, "GET", "/api/predictions", params={"project": self.project})
        return sorted((row["model_version"], row["task"], row["id"]) for row in found)


@pytest.fixture
def places(
    label_studio: Any,
    tiny: Callable[..., tuple[Settings, dict[str, str]]],
    make_project: Callable[..., int],
    tmp_path: Path,
) -> list[Place]:
    """Two projects with the same 40 images."""
    images = label_studio.document_root / "kills"
    write_phantoms(images, 40, 5)
    read = datafolder.read(images, SCHEMA, labelstudio.config_fields(CONFIG))
    found = []
    for name in ("spared", "killed"):
        project = make_project(f"kill -9: {name}", CONFIG, images, read.task_data())
        settings, environment = tiny(
            LABEL_STUDIO_URL=label_studio.url,
            LABEL_STUDIO_TOKEN=label_studio.token,
            STATE_DIR=str(tmp_path / name),
            POLL_SECONDS="60",
        )
        store = Store.open(settings.database)
        store.register_project(project, CONFIG)
        found.append(Place(label_studio, project, settings, store, environment))
    return found


@contextmanager
def mortal() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(MORTAL)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=MORTAL.parents[2]
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def made(place: Place, number: int) -> dict[str, str]:
    """sha256 of all weights that version `number` uses."""
    folder = place.registry.version(place.project, number)
    backbones = place.registry.backbones(place.project, load_json(folder / "backbones.json")["number"])
    paths = [folder / "heads.safetensors", *sorted(backbones.glob("*.safetensors"))]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def order(place: Place, number: int) -> list[tuple[Any, ...]]:
    files = place.files()
    rows = [row for row in place.rows(Published, Published.rank) if row.version == number]
    return [(files[row.task_id], row.kind, row.score) for row in rows]


def test_a_cycle_killed_at_every_step_ends_as_one_that_was_spared(places: list[Place]) -> None:
    spared, killed = places
    deaths: list[str] = []
    with mortal() as process:

        def kill_at_every_step(*, ring: bool = False) -> None:
            while True:
                if ring:  # the poll would find it as well, later
                    killed.ring()
                step = killed.live(process, deaths)
                if step is None and all(row.prediction_id for row in killed.rows(Published, Published.rank)):
                    return
                if step is None:  # the worker waits for an import that was cut off
                    continue
                deaths.append(step)
                first = killed.job(1)
                if first is not None and first.state == "running" and killed.job(2) is None:
                    jobs.request(killed.store, killed.project, "cycle", "asked for while the first one trains")
                if step == "job 1: commit finish":
                    killed.annotate(6)
                    killed.ring()

        assert spared.live(process, ["*"]) is None
        backup = spared.copy_of_store()
        spared.annotate(6)  # no webhook tells of it: it is found by asking
        spared.environment["SECOND_LOOK_POLL_SECONDS"] = "1"
        jobs.request(spared.store, spared.project, "cycle", "asked for")
        assert spared.live(process, ["*"]) is None

        kill_at_every_step()
        for number in (1, 2):
            assert {step.partition(": ")[2] for step in deaths if step.startswith(f"job {number}:")} >= (
                STEPS if number == 1 else {step for step in STEPS if "backbones/" not in step}
            )
        assert "job 0: commit claim" in deaths  # before the life knows which job it works on
        assert [(job.state, job.version) for job in killed.rows(Job, Job.id)] == [("done", 1), ("done", 2)]

        # The same weights, the same scores, the same order.
        for number in (1, 2):
            assert made(killed, number) == made(spared, number)
            one, other = (
                load_arrays(place.registry.version(place.project, number) / "predictions.npz") for place in places
            )
            assert one.keys() == other.keys()
            for name in one.keys() - {"ids"}:
                np.testing.assert_array_equal(one[name], other[name])
            assert order(killed, number) == order(spared, number)
        assert_published_once(killed)
        assert events(killed) == events(spared)

        # A restored backup is older than Label Studio and the models: no number is given twice.
        spared.restore(backup)
        jobs.request(spared.store, spared.project, "cycle", "asked for")
        assert spared.live(process, ["*"]) is None
        assert [(job.state, job.version) for job in spared.rows(Job, Job.id)] == [("done", 1), ("done", 3)]
        sizes = {name: [row[0] for row in spared.predictions()].count(queue_name(name)) for name in (1, 2, 3)}
        assert sizes[3] == sizes[1] == len(order(spared, 3))

        # A refill.
        killed.annotate(8)
        kill_at_every_step(ring=True)
        assert {"job 0: commit enter", "job 0: sent POST /api/projects/*/import/predictions"} <= set(deaths)
        assert events(killed)["refilled"] == 1
        assert_published_once(killed)

        # Version 1 stays while a screen may still show it, and then goes.
        killed.submit_shown_by(1)
        killed.environment["SECOND_LOOK_TASK_LOCK_HOURS"] = "0"
        kill_at_every_step(ring=True)
        assert {"job 0: sent DELETE /api/projects/*/model-versions/", "job 0: commit sweep"} <= set(deaths)
        assert {version for version, _, _ in killed.predictions()} == {queue_name(2)}
        assert [row.deleted_at is None for row in killed.rows(Version, Version.number)] == [False, True]


def events(place: Place) -> Counter[str]:
    return Counter(entry.event for entry in place.rows(Entry, Entry.seq))


def assert_published_once(place: Place) -> None:
    """Label Studio has each row of each order once, and the ledger is whole."""
    rows = place.rows(Published, Published.version, Published.task_id)
    assert place.predictions() == sorted((queue_name(row.version), row.task_id, row.prediction_id) for row in rows)
    assert len({(row.version, row.task_id) for row in rows}) == len(rows) > 0
    with place.store.begin() as session:
        assert ledger.verify(session, place.project) == []
    created = [entry.annotation_id for entry in place.rows(Entry, Entry.seq) if entry.event == "created"]
    assert len(created) == len(set(created))
