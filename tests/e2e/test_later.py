"""What changes after the first model: label configs, new tasks, other images, deleted tasks; one loop, in turn."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from backend import plan, scored, status
from backend.learning.folds import HOLDOUT
from backend.learning.weights import load_crossfit
from backend.registry import Registry, load_json
from backend.snapshot import Snapshot
from demo import labelstudio, oracle
from demo.oracle import Annotator
from demo.phantoms import write_phantoms
from demo.run import Running
from tasks import datafolder, queue
from tasks.tables import Annotation, Entry, Project, Published, Task, Version

LATER = 16  # phantoms drawn for those who come later


@pytest.fixture(scope="module")
def images(loop: Running) -> list[dict[str, Any]]:
    """Task data of phantoms that the loop does not know, which Label Studio serves already."""
    folder = loop.folder.folder.parent / "later"
    write_phantoms(folder, LATER, seed=17)
    labelstudio.register_local_storage(loop.admin, loop.project, folder)
    rows = datafolder.read(folder, loop.schema, labelstudio.config_fields(loop.label_config)).task_data()
    return [row | {"file": f"later/{row['file']}", "patient": f"later {row['patient']}"} for row in rows]


def registry(loop: Running) -> Registry:
    return Registry(loop.settings.state_dir)


def project(loop: Running) -> Project:
    found = loop.store.project(loop.project)
    assert found is not None
    return found


def task(loop: Running, number: int) -> Task:
    with loop.store.begin() as session:
        return session.get_one(Task, (loop.project, number))


def facts(loop: Running) -> dict[str, Any]:
    return status.of_project(loop.store, loop.settings, loop.project)


def said(loop: Running) -> scored.Scored:
    return scored.of_version(registry(loop).version(loop.project, project(loop).version or 0))


def configure(loop: Running, config: str) -> None:
    labelstudio.call(loop.admin, "PATCH", f"/api/projects/{loop.project}", json={"label_config": config})


def without(config: str, head: str) -> str:
    """The config without a control."""
    start = config.index(f'<Choices name="{head}"')
    end = config.index("</Choices>", start) + len("</Choices>")
    return config[:start] + config[end:]


def published(loop: Running, version: int) -> Callable[[], bool]:
    def holds() -> bool:
        now = facts(loop)
        idle = now["training"]["job"]["state"] == "done"
        return idle and now["model"]["version"] == version and now["queue"]["published"] == queue.queue_name(version)

    return holds


def weights(loop: Running, version: int, head: str) -> list[np.ndarray]:
    """Of one head, in all folds: standardisation, weights and biases."""
    fit = load_crossfit(registry(loop).version(loop.project, version) / "heads.safetensors")
    found = []
    for fold in fit.folds:
        start = sum(fold.sizes[: fold.names.index(head)])
        rows = slice(start, start + fold.sizes[fold.names.index(head)])
        found += [fold.mean, fold.scale, fold.weights[:, rows], fold.bias[:, rows]]
    return found


def shown(loop: Running, number: int) -> dict[str, Any]:
    """The prediction of the published version; empty where there is none."""
    task: dict[str, Any] = labelstudio.call(loop.admin, "GET", f"/api/tasks/{number}/")
    name = queue.queue_name(project(loop).published or 0)
    return next((row for row in task["predictions"] if row["model_version"] == name), {})


def annotated_task(loop: Running) -> int:
    with loop.store.begin() as session:
        return session.scalars(select(Annotation.task_id).where(Annotation.deleted_at.is_(None))).one()


def test_unchanged_heads_survive_a_changed_label_config(loop: Running, until: Callable[..., None]) -> None:
    config = without(loop.label_config, "foci").replace('<Choice value="taller"', '<Choice value="higher"')
    with loop.store.turn(loop.project):  # planned under the old config and not sent when the new one comes
        plan.extend_head(loop.store, registry(loop), loop.settings, loop.project, 1, 5)
        configure(loop, config)
    until(published(loop, 2))

    before, after = (registry(loop).version(loop.project, version) for version in (1, 2))
    about = load_json(after / "model.json")
    assert about["backbones"] == "1"  # heads of one percent each are not worth new ones
    survivors = ["bom", "tirads", "composition", "echogenicity", "margin"]
    for head in survivors:
        for old, new in zip(weights(loop, 1, head), weights(loop, 2, head), strict=True):
            np.testing.assert_array_equal(new, old)
    # Recorded labels that say "taller" are gone with the class, and what is left is one answer: nothing to learn.
    assert about["heads"] == survivors
    old, new = scored.of_version(before), scored.of_version(after)
    for head in survivors:
        np.testing.assert_allclose(new.probabilities[head], old.probabilities[head], atol=1e-6)
    assert facts(loop)["model"]["archived"] == {"foci": 1}
    assert (before / "heads.safetensors").exists()
    with loop.store.begin() as session:
        unsent = select(Published).where(Published.version == 1, Published.prediction_id.is_(None))
        assert session.scalars(unsent).all() == []  # forgotten, where they had answers that are gone
        rows = session.scalars(select(Published).where(Published.version == 2)).all()
        controls = {result["from_name"] for row in rows for result in row.shown}
        reasons = session.scalars(select(Version.metrics).order_by(Version.number)).all()
    assert controls == {*survivors, "why"}
    # Its evaluation goes on too. Who is a suspect also hangs on the other controls' labels, some of which are gone.
    old, new = (figures["bom"] | {"suspects": 0} for figures in reasons)
    assert new == old


def test_labels_under_a_removed_head_are_kept_and_count_again_when_it_is_restored(
    loop: Running, until: Callable[..., None]
) -> None:
    configure(loop, loop.label_config)
    until(published(loop, 3))
    assert facts(loop)["model"]["archived"] == {}
    person = Annotator(loop.admin, loop.project, loop.schema, "admin")
    visit = next(iter(oracle.take_turns([person], loop.folder.truth, 1)))

    def labels() -> set[str] | None:
        with loop.store.begin() as session:
            row = session.get(Annotation, (loop.project, visit.annotation))
            return None if row is None else set(row.labels)

    until(lambda: labels() == {head.name for head in loop.schema.heads})
    # Label Studio lets no annotated control be removed; one that is not learnt any more is the same to us.
    configure(loop, loop.label_config.replace('name="margin"', 'name="margin" model_role="review"'))
    until(published(loop, 4))
    assert labels() == {head.name for head in loop.schema.heads} - {"margin"}
    assert "margin" not in said(loop).probabilities and facts(loop)["model"]["archived"] == {"margin": 3}

    configure(loop, loop.label_config)
    until(published(loop, 5))
    assert labels() == {head.name for head in loop.schema.heads}
    taken = Snapshot.load(registry(loop).version(loop.project, 5) / "snapshot.npz")
    assert taken.ids[taken.adjudicated["margin"]].tolist() == [visit.task]
    with loop.store.begin() as session:
        entries = session.scalars(select(Entry.event).where(Entry.annotation_id == visit.annotation)).all()
    assert entries == ["created", "changed", "changed"]


def test_tasks_added_later_are_read_predicted_and_ranked_without_a_training(
    loop: Running, images: list[dict[str, Any]], until: Callable[..., None]
) -> None:
    first = max(said(loop).ids.tolist()) + 1
    with loop.store.begin() as session:
        relative = session.scalars(select(Task).where(Task.fold == 0).order_by(Task.id)).first()
    assert relative is not None
    data = images[:10]
    data[0] = data[0] | {"patient": relative.group}
    data[1] = data[1] | {"image": "/data/local-files/?d=later/images/none.png"}
    labelstudio.import_tasks(loop.admin, loop.project, data, loop.label_config)
    # Killed while it reads, or wherever it is by then, the job is gone on with.
    until(lambda: (facts(loop)["catching_up"]["job"] or {}).get("step"))
    loop.stack.kill("worker")
    loop.stack.restart("worker")
    new = list(range(first, first + 10))
    broken = new[1]

    def caught_up() -> bool:
        now = facts(loop)
        return (
            now["tasks"] == 130 and now["catching_up"]["waiting"] == 0 and now["catching_up"]["job"]["state"] == "done"
        )

    until(caught_up)
    readable = [number for number in new if number != broken]
    assert set(readable) <= set(said(loop).ids.tolist()) and broken not in said(loop).ids
    assert task(loop, broken).image_error and facts(loop)["images_failed"]["count"] == 1
    assert task(loop, new[0]).fold == 0 and task(loop, new[0]).group == relative.group
    assert all(task(loop, number).fold is not None for number in readable)
    for head, probabilities in said(loop).probabilities.items():
        rows = [said(loop).row_of[number] for number in readable]
        assert np.ptp(probabilities[rows], axis=0).max() > 0, head  # not one answer for all
    assert facts(loop)["model"]["version"] == 5  # no training was needed

    rows = plan.preview(loop.store, registry(loop), loop.settings, loop.project, 200)
    ranked = {row["task"]: row for row in rows}
    pool = {number for number in readable if task(loop, number).fold != HOLDOUT}  # of the hold-out few are drawn
    assert pool <= ranked.keys() and not any(ranked[number]["published"] for number in pool)
    assert broken not in ranked
    with loop.store.turn(loop.project):
        plan.extend_head(loop.store, registry(loop), loop.settings, loop.project, 5, 200)
    until(lambda: all(shown(loop, number) for number in pool))  # the worker sends what is new in the order
    suggested = [{result["from_name"] for result in shown(loop, number)["result"]} for number in pool]
    assert {"why"} < max(suggested, key=len)


def test_a_changed_image_is_looked_at_anew_and_its_old_answer_taken_back(
    loop: Running, images: list[dict[str, Any]], until: Callable[..., None]
) -> None:
    with loop.store.begin() as session:
        query = (
            select(Published)
            .join(Task, (Task.project_id == Published.project_id) & (Task.id == Published.task_id))
            .where(Published.version == 5, Published.kind == "ranked", Task.is_labeled.is_(False))
            .order_by(Published.rank)
        )
        row = session.scalars(query).first()
    assert row is not None
    old, before = task(loop, row.task_id), shown(loop, row.task_id)
    said_before = said(loop).of(row.task_id)["bom"]
    data = old.data | {"image": images[12]["image"]}
    labelstudio.call(loop.admin, "PATCH", f"/api/tasks/{row.task_id}/", json={"data": data})
    until(lambda: task(loop, row.task_id).pixels not in (None, old.pixels))
    until(lambda: said(loop).still({row.task_id: task(loop, row.task_id).pixels}))
    until(lambda: facts(loop)["catching_up"]["job"]["state"] == "done")

    now = task(loop, row.task_id)
    assert now.group == old.group and now.fold == old.fold  # still the same patient's
    after = shown(loop, row.task_id)
    assert (after["id"], after["score"]) == (before["id"], before["score"])  # its place in the order stays
    assert after["result"] != before["result"]
    p = said(loop).of(row.task_id)["bom"]
    assert not np.array_equal(p, said_before)
    ticked = next(result for result in after["result"] if result["from_name"] == "bom")
    assert ticked["score"] == pytest.approx(float(p.max()), abs=1e-3)


def test_deleted_tasks_are_forgotten_and_their_numbers_inherit_nothing(
    loop: Running, images: list[dict[str, Any]], until: Callable[..., None]
) -> None:
    scored_before, tasks_before = said(loop), facts(loop)["tasks"]
    last = max(row["id"] for row in labelstudio.list_tasks(loop.admin, loop.project))
    head = queue.open_head(loop.store, loop.project)
    gone = [last, head[0]] if head[0] != last else [last, head[1]]
    annotated = annotated_task(loop)
    for number in [*gone, annotated]:
        labelstudio.call(loop.admin, "DELETE", f"/api/tasks/{number}/")
    until(lambda: facts(loop)["tasks"] == tasks_before - 3)

    assert not set(gone) & set(queue.open_head(loop.store, loop.project))
    rows = plan.preview(loop.store, registry(loop), loop.settings, loop.project, 200)
    assert not {*gone, annotated} & {row["task"] for row in rows}
    assert facts(loop)["annotations"] == 0
    with loop.store.begin() as session:  # the ledger forgets nothing
        entries = session.scalars(select(Entry.event).where(Entry.task_id == annotated)).all()
        assert entries[0] == "created" and "deleted" in entries

    # SQLite gives the last number away again.
    labelstudio.import_tasks(loop.admin, loop.project, [images[14]], loop.label_config)
    until(lambda: task(loop, last).deleted_at is None and task(loop, last).pixels is not None)
    until(lambda: facts(loop)["catching_up"]["job"]["state"] == "done")
    until(lambda: said(loop).still({last: task(loop, last).pixels}))
    assert task(loop, last).data["file"] == images[14]["file"]
    assert not np.array_equal(said(loop).of(last)["bom"], scored_before.of(last)["bom"])
    assert facts(loop)["model"]["version"] == 5
