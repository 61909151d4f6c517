"""Live /predict on a real Label Studio: tasks opened outside the queue, and "Retrieve predictions" on thousands."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from werkzeug.serving import make_server

from backend import connection
from backend import settings as chosen
from backend.app import create_app
from backend.cli import app
from backend.label_studio import open_client
from backend.settings import Settings
from backend.worker import Worker
from demo import labelstudio
from demo.labelstudio import call
from demo.oracle import Annotator
from demo.ports import any_port
from tasks.queue import live_name, queue_name
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Project, Published, Version

CONFIG = """<View><Image name="image" value="$image"/>
<Choices name="bom" toName="image" model_current="$bom"><Choice value="benign"/><Choice value="malignant"/></Choices>
<TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/></View>"""
IMAGES = 60
MANY = 2000


@dataclass
class Place:
    """A project with 60 small images, bright ones malignant, whose backend is served and connected."""

    server: Any
    settings: Settings
    store: Store
    project: int
    rows: list[dict[str, Any]]

    def train(self) -> None:
        """Let a worker make the first version and publish it."""

        def published() -> bool:
            row = self.store.project(self.project)
            return row is not None and row.published is not None and len(row.alarms) == 0

        Worker(self.settings, self.store).run(until=published)

    def add(self, *rows: dict[str, Any]) -> list[int]:
        before = {task["id"] for task in self.tasks()}
        call(self.server.admin, "POST", f"/api/projects/{self.project}/import", json=list(rows))
        return [task["id"] for task in self.tasks() if task["id"] not in before]

    def tasks(self) -> list[dict[str, Any]]:
        return labelstudio.list_tasks(self.server.admin, self.project)

    def opened(self, task: int) -> list[dict[str, Any]]:
        """The predictions of a task, as its page shows them when somebody opens it."""
        shown = call(self.server.admin, "GET", f"/api/tasks/{task}", params={"project": self.project})
        return list(shown["predictions"])

    def published(self) -> list[int]:
        with self.store.begin() as session:
            rows = session.query(Published).filter_by(project_id=self.project).order_by(Published.rank)
            return [row.task_id for row in rows]


@pytest.fixture
def place(label_studio: Any, make_project: Callable[..., int], tmp_path: Path) -> Iterator[Place]:
    folder = label_studio.document_root / "live"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(IMAGES):
        bright = number % 2
        pixels = rng.integers(0, 90, (32, 32, 3)) + 120 * bright
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        label = "malignant" if bright else "benign"
        rows.append({"image": f"/data/local-files/?d=live/{number}.png", "bom": label, "file": f"{number}.png"})
    project = make_project("live answers", CONFIG, folder, rows)
    settings = Settings(
        label_studio_url=label_studio.url,
        label_studio_token=label_studio.token,
        state_dir=tmp_path,
        port=any_port(),
        password="a password",
        backbone="test_resnet",
        weights="scratch",
        image_size=32,
        folds=2,
        head_seeds=1,
        epochs=1,
        batch_size=10,
        poll_seconds=1,
    )
    store = Store.open(settings.database)
    server = make_server(settings.host, settings.port, create_app(settings), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    client = open_client(settings)
    try:
        connection.set_up(store, client, settings, project)
        yield Place(label_studio, settings, store, project, rows)
    finally:
        client.close()
        server.shutdown()
        thread.join()
        server.server_close()


def controls(prediction: dict[str, Any]) -> set[str]:
    return {result["from_name"] for result in prediction["result"]}


def test_live_answers_never_disturb_the_published_order(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first = place.tasks()[0]["id"]
    (before,) = place.opened(first)  # no model yet: an answer that says nothing
    assert (before["result"], before["model_version"]) == ([], live_name(None))

    place.train()
    order = place.published()
    assert len(order) >= 30 and first in {task["id"] for task in place.tasks()}

    # A task that no cycle has seen is looked at when it is opened, and stays where it was in the queue: nowhere.
    (new,) = place.add(place.rows[1] | {"file": "new.png"})
    (live,) = place.opened(new)
    assert live["model_version"] == live_name(1) and controls(live) == {"bom", "why"}
    assert place.opened(new) == [live]  # it is not asked for again

    # "Retrieve predictions" on two thousand tasks, which show only a few images: one call, one answer each.
    rows = [place.rows[number % 5] | {"file": f"many-{number}.png"} for number in range(MANY)]
    many = place.add(*rows)
    selected = {"selectedItems": {"all": False, "included": many}, "project": place.project}
    action = {"id": "retrieve_tasks_predictions", "project": place.project}
    call(place.server.admin, "POST", "/api/dm/actions", params=action, json=selected)
    stored: dict[int, list[dict[str, Any]]] = {}
    for prediction in call(place.server.admin, "GET", "/api/predictions", params={"project": place.project}):
        stored.setdefault(prediction["task"], []).append(prediction)
    assert len(many) == MANY
    assert all([row["model_version"] for row in stored[task]] == [live_name(1)] for task in many)
    assert {frozenset(controls(stored[task][0])) for task in many} == {frozenset({"bom", "why"})}

    # The published order goes on as if nothing had been asked.
    assert call(place.server.admin, "GET", f"/api/projects/{place.project}")["model_version"] == queue_name(1)
    annotator = Annotator(place.server.admin, place.project, parse_label_config(CONFIG), "admin")
    for _ in range(6):
        task = annotator.next_task()
        assert task is not None
        annotator.submit(task, {"bom": ("benign",)}, 3.0)
    assert [visit.task for visit in annotator.visits] == order[:6]
    assert {visit.version for visit in annotator.visits} == {queue_name(1)}

    # Imported probabilities take the queue over and are evaluated on the hold-out; a training, if asked for, ends it.
    monkeypatch.setattr(chosen, "settings", lambda: place.settings)
    path = place.settings.state_dir / "oof.csv"
    lines = [f"{row['file']},{0.1 + 0.8 * (n % 2):.1f},{0.9 - 0.8 * (n % 2):.1f}" for n, row in enumerate(place.rows)]
    path.write_text("\n".join(["file,bom:malignant,bom:benign", *lines]))
    for arguments, version, source in (
        (["import-probabilities", str(path)], 2, "oof.csv"),
        (["cycle"], 3, None),
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        with place.store.begin() as session:
            row = session.get_one(Project, place.project)
            assert (row.version, row.published, row.probabilities) == (version, version, source)
            holdout = session.get_one(Version, (place.project, version)).metrics["bom"]
            assert holdout["n"] > 0 and (source is None or holdout["auc"] == 1)
