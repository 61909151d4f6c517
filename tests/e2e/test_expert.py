"""Two people at the labelling screen: what one flags, the other decides, in a real browser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Response
from sqlalchemy import select

from backend import status
from backend.connection import take_down
from backend.doctor import order
from backend.doctor.gather import gather
from backend.doctor.observed import Stored
from backend.settings import Settings
from backend.worker import Worker
from demo import labelstudio, run
from demo.labelstudio import Account
from demo.oracle import Annotator
from demo.phantoms import write_phantoms
from tasks import datafolder, queue, sync
from tasks.codec import decode_current, encode_labels, encode_why
from tasks.labels import settle
from tasks.queue import Planned
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Project, Task, Version

CONFIG = run.CONFIG.read_text()
SCHEMA = parse_label_config(CONFIG)
FLAG = [{"id": "flag", "from_name": "flag", "to_name": "image", "type": "choices", "value": {"choices": ["expert"]}}]


def is_next_task(response: Response) -> bool:
    return "id=next_task" in response.url and response.request.method == "POST"


def served(page: Page, press: Callable[[], None]) -> dict[str, Any]:
    """The task that Label Studio serves when something is pressed."""
    with page.expect_response(is_next_task) as answer:
        press()
    page.wait_for_selector(".sl-answers .lsf-choices")
    return dict(answer.value.json())


def ticked(page: Page) -> list[str]:
    return [str(box.get_attribute("name")) for box in page.locator(".sl-answers input:checked").all()]


def submit(page: Page, *answers: str) -> None:
    """Tick these answers, the first of each control that has none yet, and submit."""
    for answer in answers:
        page.locator(f".sl-answers input[name='{answer}']").check(force=True)
    for line in page.locator(".sl-answers .sl-row").all():
        choices = line.locator(".lsf-choices label")
        if choices.count() > 1 and not line.locator("input:checked").count():
            choices.first.click()
    with page.expect_response(is_next_task):
        page.get_by_test_id("bottombar-submit-button").click()


def test_what_an_annotator_flags_is_decided_by_the_expert(
    label_studio: Any, make_project: Callable[..., int], log_in: Callable[[str, Account], Page], tmp_path: Path
) -> None:
    folder = label_studio.document_root / "expert"
    write_phantoms(folder, 4, 3)
    read = datafolder.read(folder, SCHEMA, labelstudio.config_fields(CONFIG))
    project = make_project("Two people", CONFIG, folder, read.task_data())
    settings = Settings(label_studio_url=label_studio.url, label_studio_token=label_studio.token, state_dir=tmp_path)
    store = Store.open(settings.database)
    store.register_project(project, CONFIG, connection="poll")
    worker = Worker(settings, store)
    sync.reconcile(store, worker.client, project)
    with store.begin() as session:
        tasks = session.scalars(select(Task).order_by(Task.id)).all()
        about = {"created_at": 0, "seconds": 1, "schema": "", "labels": 0, "metrics": {}}
        session.add(Version(project_id=project, number=1, **about))
    first, second, third, last = (task.id for task in tasks)
    shown = {task.id: encode_labels(SCHEMA, decode_current(SCHEMA, task.data)[0]) for task in tasks}
    planned = [
        Planned(task, "ranked", 0.5, "Because.", shown[task] + encode_why(SCHEMA, "Because."))
        for task in (first, second, third)
    ]
    queue.enter(store, project, 1, planned)
    queue.push(store, worker.client, project, 1)
    queue.flip(store, worker.client, project, 1)

    def look() -> None:
        """As the worker does."""
        with store.turn(project):
            assert worker.look_after(project, False) == []

    address = f"{label_studio.url}/projects/{project}/data"
    annotator = log_in(label_studio.url, label_studio.credentials.annotator)
    annotator.goto(address)
    task = served(annotator, annotator.get_by_text("Label All Tasks").click)
    assert task["id"] == first and task["predictions"]
    submit(annotator, "Ask the expert")
    look()
    waiting = status.of_project(store, settings, project)["expert"]
    assert waiting["waiting"] == 1

    expert = log_in(label_studio.url, label_studio.credentials.admin)
    expert.goto(f"{label_studio.url}{waiting['path']}")
    expert.get_by_text("For the expert", exact=True).first.wait_for()
    expert.get_by_text("Tasks: 1 / 4").wait_for()
    expert.get_by_label("Toggle open").click()
    task = served(expert, expert.get_by_text("Label Tasks As Displayed").click)
    assert task["id"] == first
    assert task["predictions"] == [] and ticked(expert) == []
    assert expert.locator("[data-testid=htx-textbox-content]").count() == 0
    expert.screenshot(path=tmp_path / "expert.png")
    submit(expert, "malignant")
    look()

    with store.begin() as session:
        said = session.scalars(select(Annotation).where(Annotation.task_id == first)).all()
        closed, tab = session.get_one(Task, (project, first)), session.get_one(Project, project).expert_view
    assert len(said) == 2
    settled = settle(said, {})
    assert not settled.flagged and settled.labels["bom"] == ("malignant",)
    assert closed.is_labeled and closed.overlap_before is None
    assert status.of_project(store, settings, project)["expert"]["waiting"] == 0
    _, (seen,) = gather(settings, project)
    assert list(order.predictions(seen)) == []
    assert isinstance(seen.stored, Stored) and [row.task for row in seen.stored.servings] == [first]  # as the annotator
    expert.goto(f"{address}?tab={tab}")
    expert.get_by_text("Tasks: 0 / 4").wait_for()

    # Who flagged it goes on with what is left, and then there is nothing.
    people = [Annotator(session, project, SCHEMA, "") for session in (label_studio.annotator, label_studio.admin)]
    met = []
    while (found := people[0].next_task()) is not None:
        met.append(found["id"])
        people[0].submit(found, {"bom": ("benign",)}, 3.0)
    assert met == [second, third, last]
    assert people[1].next_task() is None

    # Disconnected, nothing of us is left: neither the tab nor an open task.
    labelstudio.call(
        label_studio.annotator,
        "POST",
        f"/api/tasks/{last}/annotations/",
        params={"project": project},
        json={"result": encode_labels(SCHEMA, {"bom": ("benign",)}) + FLAG},
    )
    look()
    assert status.of_project(store, settings, project)["expert"]["waiting"] == 1
    with store.turn(project):
        said = take_down(store, worker.client, settings, project)
    assert "expert: flagged tasks that waited (1) are closed, and their tab is removed" in said
    assert [row["data"]["title"] for row in worker.client.tabs(project)] == ["Default"]
    (page,) = worker.client.tasks_by_id(project, [task.id for task in tasks])
    assert all(row["is_labeled"] and row["overlap"] == 1 for row in page)
    worker.client.close()
