"""What `status` says of tasks that came later, of deleted ones, and of heads that are gone."""

from typing import Any

import pytest

from backend import status
from tasks.tables import Job, Project, Task, Version


def facts(world) -> dict[str, Any]:
    return status.of_project(world.store, world.settings, 1)


def test_waiting_tasks_and_the_job_that_reads_them(world) -> None:
    assert facts(world)["catching_up"] == {"waiting": 0, "job": None}
    with world.store.begin() as session:
        for number, fields in enumerate(({}, {"image_error": "no image"}, {"deleted_at": 1.0}), start=1):
            task = session.get_one(Task, (1, number))
            task.pixels = None
            for name, value in fields.items():
                setattr(task, name, value)
        session.add(Job(project_id=1, kind="cycle", state="done", created_at=0.0, version=1))
        session.add(Job(project_id=1, kind="catch-up", state="running", step="reading images", created_at=0.0, total=1))
    now = facts(world)
    assert now["catching_up"]["waiting"] == 1
    assert now["catching_up"]["job"]["step"] == "reading images" and now["catching_up"]["job"]["kind"] == "catch-up"
    assert now["training"]["job"]["kind"] == "cycle" and now["training"]["job"]["state"] == "done"


def test_deleted_tasks_are_forgotten(world) -> None:
    world.extend(10)
    head = world.published()
    with world.store.begin() as session:
        session.get_one(Project, 1).published = 1
        task = session.get_one(Task, (1, head[0].task_id))
        task.deleted_at, task.problems, task.image_error = 1.0, ["a problem"], "no image"
        session.get_one(Task, (1, head[1].task_id)).problems = ["odd"]
    now = facts(world)
    assert now["tasks"] == 119 and now["queue"]["size"] == now["queue"]["open"] == 9
    assert now["tasks_with_problems"] == [{"task": head[1].task_id, "problems": ["odd"]}]
    assert now["images_failed"]["count"] == 0


@pytest.mark.parametrize(("heads", "archived"), [(["bom"], {}), (["bom", "margin"], {"margin": 2})])
def test_removed_heads_are_named_with_the_version_that_keeps_them(
    world, heads: list[str], archived: dict[str, int]
) -> None:
    with world.store.begin() as session:
        session.get_one(Version, (1, 1)).metrics = {head: {} for head in heads}
        for number, learnt in ((2, heads), (3, ["bom"])):
            metrics = {head: {} for head in learnt}
            session.add(
                Version(project_id=1, number=number, created_at=0, seconds=1, schema="", labels=1, metrics=metrics)
            )
    assert facts(world)["model"]["archived"] == archived
