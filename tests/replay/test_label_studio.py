"""The Label Studio of replays, beside a real one that is put through the same."""

from pathlib import Path
from typing import Any, cast

from sqlalchemy import select

from backend.replay.label_studio import PROJECT, ReplayLabelStudio
from demo import labelstudio
from tasks import queue, sync
from tasks.client import Client
from tasks.codec import encode_labels, encode_why
from tasks.queue import Planned
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Published, Task, Version

CONFIG = """<View><Image name="image" value="$image"/>
<Choices name="bom" toName="image" required="true" model_current="$bom">
  <Choice value="benign"/><Choice value="malignant"/></Choices>
<TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/></View>"""
SCHEMA = parse_label_config(CONFIG)
DATA = [{"image": f"/data/upload/{n}.png", "file": f"{n}.png", "bom": "benign"} for n in range(5)]


def what_a_loop_keeps(store: Store, client: Client, project: int, annotate: Any) -> list[Any]:
    """Reconcile, publish three of five tasks, have the first two answered, reconcile: what the store holds then.

    Tasks are named by their place, since a real Label Studio numbers them on.
    """
    store.register_project(project, CONFIG, connection="poll")
    sync.reconcile(store, client, project)
    with store.begin() as session:
        ids = session.scalars(select(Task.id).order_by(Task.id)).all()
        session.add(Version(project_id=project, number=1, created_at=0, seconds=1, schema="", labels=0, metrics={}))
    shown = encode_labels(SCHEMA, {"bom": ("malignant",)}) + encode_why(SCHEMA, "Why.")
    queue.enter(store, project, 1, [Planned(ids[place], "ranked", 0.5, "Why.", shown) for place in (3, 0, 4)])
    queue.push(store, client, project, 1)
    queue.flip(store, client, project, 1)
    for task, label in zip(queue.open_head(store, project)[:2], ("benign", "malignant"), strict=True):
        annotate(task, encode_labels(SCHEMA, {"bom": (label,)}))
    sync.reconcile(store, client, project)
    assert queue.guard(store, client, project) == []
    assert client.model_versions(project) == {"v1-queue-order": 3}
    with store.begin() as session:
        tasks = session.scalars(select(Task).order_by(Task.id)).all()
        annotations = session.scalars(select(Annotation).order_by(Annotation.id)).all()
        predictions = {row.prediction_id: row.task_id for row in session.scalars(select(Published))}
        return [
            [(row.data["image"], row.current, row.is_labeled, row.annotations, row.cancelled) for row in tasks],
            [
                (ids.index(row.task_id), row.origin, row.labels, row.was_cancelled, row.deleted_at)
                for row in annotations
            ],
            [predictions[row.parent_prediction] == row.task_id for row in annotations],
            [ids.index(task) for task in queue.open_head(store, project)],
        ]


def test_the_loop_keeps_of_a_replay_what_it_keeps_of_a_real_one(label_studio: Any, tmp_path: Path) -> None:
    replayed = ReplayLabelStudio(CONFIG, DATA)
    kept = what_a_loop_keeps(
        Store.open(f"sqlite:///{tmp_path / 'replay.db'}"), cast(Client, replayed), PROJECT, replayed.answer
    )
    admin = label_studio.admin
    project = labelstudio.create_project(admin, "Beside a replay", CONFIG)["id"]
    labelstudio.import_tasks(admin, project, DATA, CONFIG)
    client = Client(label_studio.url, label_studio.token)

    def annotate(task: int, result: list[dict[str, Any]]) -> None:
        (prediction,) = labelstudio.call(admin, "GET", f"/api/tasks/{task}")["predictions"]
        body = {"result": result, "parent_prediction": prediction["id"], "lead_time": 5.0}
        labelstudio.call(admin, "POST", f"/api/tasks/{task}/annotations/", json=body)

    real = what_a_loop_keeps(Store.open(f"sqlite:///{tmp_path / 'real.db'}"), client, project, annotate)
    client.close()
    assert kept == real
    assert kept[3] == [4]  # of the order 3, 0, 4 the first two are answered
