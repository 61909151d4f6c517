"""A small project on the real Label Studio beside a store of its own, and what people do there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from demo import labelstudio
from demo.labelstudio import call
from demo.oracle import Annotator
from tasks import queue, reopen, sync
from tasks.client import Client
from tasks.queue import Planned
from tasks.schema import Schema, parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Entry, Project, Task, Version
from tasks.takeover import Changes

CONFIG = """<View>
  <Image name="image" value="$image" model_group="$patient"/>
  <TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/>
  <Choices name="bom" toName="image" model_current="$bom"><Choice value="benign"/><Choice value="malignant"/></Choices>
  <Choices name="foci" toName="image" choice="multiple"><Choice value="none"/><Choice value="rim"/></Choices>
  <Choices name="flag" toName="image" choice="multiple" model_role="flag"><Choice value="expert"/></Choices>
</View>"""
SCHEMA = parse_label_config(CONFIG)
Result = list[dict[str, Any]]


def data(number: int) -> dict[str, str]:
    return {"file": f"{number}.png", "image": f"/images/{number}.png", "patient": f"p{number // 2}", "bom": "benign"}


@dataclass
class Scene:
    """One project: its store, and its two users (numbers and sessions)."""

    client: Client
    store: Store
    project: int
    users: dict[int, httpx.Client]
    admin: int
    annotator: int
    schema: Schema = SCHEMA

    @staticmethod
    def choices(**answers: str) -> Result:
        """Results as the labelling screen writes them: choices(bom="benign", foci="rim")."""
        return [
            {"id": name, "from_name": name, "to_name": "image", "type": "choices", "value": {"choices": [answer]}}
            for name, answer in answers.items()
        ]

    @staticmethod
    def why(text: str) -> Result:
        return [{"id": "why", "from_name": "why", "to_name": "image", "type": "textarea", "value": {"text": [text]}}]

    # what people do in Label Studio

    def submit(self, task: int, result: Result, user: int | None = None, **more: Any) -> int:
        body = {"result": result, "lead_time": 4.0, "project": str(self.project), **more}
        return self._post(user, f"/api/tasks/{task}/annotations/", body)["id"]

    def skip(self, task: int, user: int | None = None) -> int:
        return self.submit(task, self.why("Recorded: benign."), user, was_cancelled=True)

    def draft(self, task: int, user: int | None = None, annotation: int | None = None) -> None:
        where = f"/annotations/{annotation}" if annotation else ""
        self._post(user, f"/api/tasks/{task}{where}/drafts", {"result": self.choices(bom="benign"), "lead_time": 1.0})

    def edit(self, annotation: int, result: Result, user: int | None = None) -> None:
        call(self._session(user), "PATCH", f"/api/annotations/{annotation}/", json={"result": result})

    def delete(self, annotation: int, user: int | None = None) -> None:
        call(self._session(user), "DELETE", f"/api/annotations/{annotation}/")

    def act(self, action: str, tasks: Sequence[int], user: int | None = None, **more: Any) -> None:
        """A Data Manager action on selected tasks."""
        chosen = {"selectedItems": {"all": False, "included": list(tasks)}, **more}
        self._post(user, "/api/dm/actions", chosen, id=action)

    def add(self, *rows: dict[str, Any]) -> list[int]:
        before = set(self.ids())
        call(self._session(None), "POST", f"/api/projects/{self.project}/import", json=list(rows))
        return [task for task in self.ids() if task not in before]

    def patch(self, task: int, **fields: Any) -> None:
        call(self._session(None), "PATCH", f"/api/tasks/{task}/", json=fields)

    def ids(self) -> list[int]:
        return [row["id"] for row in labelstudio.list_tasks(self._session(None), self.project)]

    def _session(self, user: int | None) -> httpx.Client:
        return self.users[self.admin if user is None else user]

    def _post(self, user: int | None, path: str, body: dict[str, Any], **query: Any) -> Any:
        return call(self._session(user), "POST", path, params={"project": self.project, **query}, json=body)

    def people(self) -> tuple[Annotator, Annotator]:
        """The admin and the annotator at the labelling screen."""
        first, second = (
            Annotator(self.users[user], self.project, self.schema, str(user)) for user in (self.admin, self.annotator)
        )
        return first, second

    def there(self) -> dict[int, tuple[int, bool]]:
        """Overlap and is_labeled of each task in Label Studio."""
        pages = self.client.tasks_by_id(self.project, self.ids())
        return {row["id"]: (row["overlap"], row["is_labeled"]) for page in pages for row in page}

    # what we publish

    def push(self, version: int, tasks: Sequence[int]) -> None:
        with self.store.begin() as session:
            session.merge(
                Version(
                    project_id=self.project, number=version, created_at=0, seconds=1, schema="", labels=0, metrics={}
                )
            )
        shown = self.choices(bom="malignant") + self.why("Because.")
        planned = [Planned(task, "ranked", 0.5, "", shown) for task in tasks]
        queue.enter(self.store, self.project, version, planned)
        queue.push(self.store, self.client, self.project, version)

    def publish(self, version: int, tasks: Sequence[int]) -> int:
        """As a cycle does; returns how many were opened."""
        self.push(version, tasks)
        opened = reopen.reopen(self.store, self.client, self.project, version)
        queue.flip(self.store, self.client, self.project, version)
        return opened

    # what the store makes of it

    def reconcile(self, **options: Any) -> Changes:
        return sync.reconcile(self.store, self.client, self.project, **options)

    def annotation(self, number: int) -> Annotation:
        with self.store.begin() as session:
            return session.get_one(Annotation, (self.project, number))

    def task(self, number: int) -> Task:
        with self.store.begin() as session:
            return session.get_one(Task, (self.project, number))

    def ledger(self, since: int = 0, about_tasks: bool = False) -> list[Entry]:
        """What happened to annotations and models, or to the tasks themselves."""
        with self.store.begin() as session:
            rows = session.scalars(select(Entry).where(Entry.project_id == self.project).order_by(Entry.seq))
            chosen = [row for row in rows if (row.event in ("configured", "recorded", "removed")) == about_tasks]
            return chosen[since:]

    def events(self, since: int = 0) -> list[tuple[str, int | None, int | None]]:
        """What happened to which annotation, and who did it."""
        return [(entry.event, entry.annotation_id, entry.actor) for entry in self.ledger(since)]

    def set_project(self, **fields: Any) -> None:
        with self.store.begin() as session:
            for name, value in fields.items():
                setattr(session.get_one(Project, self.project), name, value)

    def assert_equal(self) -> None:
        """Every task and annotation of the store is as Label Studio shows it, and the other way round."""
        page = {"project": self.project, "fields": "all", "resolve_uri": "false", "page_size": 1000}
        rows = call(self._session(None), "GET", "/api/tasks", params=page)["tasks"]
        with self.store.begin() as session:
            tasks = session.scalars(select(Task).where(Task.project_id == self.project)).all()
            annotations = session.scalars(select(Annotation).where(Annotation.project_id == self.project)).all()
        assert {row["id"]: _shown_task(row) for row in rows} == {
            task.id: _stored_task(task) for task in tasks if task.deleted_at is None
        }
        assert {item["id"]: _shown_annotation(item, row["id"]) for row in rows for item in row["annotations"]} == {
            row.id: _stored_annotation(row) for row in annotations if row.deleted_at is None
        }


def _time(moment: str) -> datetime:
    return datetime.fromisoformat(moment)


def _shown_task(row: dict[str, Any]) -> tuple[Any, ...]:
    bom = row["data"].get("bom")
    return (
        row["data"],
        row["data"]["image"],
        {"bom": [bom]} if bom else {},
        row["is_labeled"],
        row["total_annotations"],
        row["cancelled_annotations"],
        _time(row["updated_at"]),
        row["updated_by"][0]["user_id"] if row["updated_by"] else None,
    )


def _stored_task(task: Task) -> tuple[Any, ...]:
    current = {head: list(names) for head, names in task.current.items()}
    counts = (task.is_labeled, task.annotations, task.cancelled)
    return (task.data, task.image, current, *counts, _time(task.updated_at), task.updated_by)


def _shown_annotation(item: dict[str, Any], task: int) -> tuple[Any, ...]:
    answers = {part["from_name"]: part["value"].get("choices") for part in item["result"] if part["from_name"] != "why"}
    flagged = "flag" in answers
    labels = {name: answer for name, answer in answers.items() if name != "flag"}
    if answers:
        labels.setdefault("foci", [])  # something was answered, so nothing is ticked there
    who = (item["completed_by"], item["updated_by"])
    times = (_time(item["created_at"]), _time(item["updated_at"]), item["lead_time"])
    return (task, labels, flagged, item["was_cancelled"], item["result"], *who, *times)


def _stored_annotation(row: Annotation) -> tuple[Any, ...]:
    labels = {head: list(names) for head, names in row.labels.items()}
    who, times = (row.completed_by, row.updated_by), (_time(row.created_at), _time(row.updated_at), row.lead_time)
    return (row.task_id, labels, row.flagged, row.was_cancelled, row.result, *who, *times)


@pytest.fixture(scope="session")
def client(label_studio: Any) -> Iterator[Client]:
    client = Client(label_studio.url, label_studio.token)
    yield client
    client.close()


@pytest.fixture
def scene(
    label_studio: Any,
    client: Client,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Scene]:
    """Makes a project of so many tasks, which the store does not know yet."""
    # A test lasts less than what is read again for safety: what an incremental pass misses must not be met by luck.
    monkeypatch.setattr(sync, "OVERLAP", timedelta(0))
    sessions = (label_studio.admin, label_studio.annotator)
    admin, annotator = (call(session, "GET", "/api/current-user/whoami")["id"] for session in sessions)

    def make(tasks: int, config: str = CONFIG) -> Scene:
        title = request.node.name[:50]
        project = call(label_studio.admin, "POST", "/api/projects", json={"title": title, "label_config": config})["id"]
        if tasks:
            rows = [data(number) for number in range(tasks)]
            call(label_studio.admin, "POST", f"/api/projects/{project}/import", json=rows)
        store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
        store.register_project(project, config)
        users = dict(zip((admin, annotator), sessions, strict=True))
        return Scene(client, store, project, users, admin, annotator, parse_label_config(config))

    return make
