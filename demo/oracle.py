"""Annotators that know the truth, working through the calls that Label Studio's own labelling screen makes.

    annotators = [Annotator(admin, project, schema, "admin"), Annotator(second, project, schema, "annotator")]
    for visit in take_turns(annotators, truth, 100):
        ...
    visits = [visit for annotator in annotators for visit in annotator.visits]
    served_order_spearman(visits, published), duplicates(visits)

Each annotator keeps what it was served and when, which is the record that the queue is judged by.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import httpx
import stamina
from scipy.stats import spearmanr

from demo.correction import Masks, marked
from tasks.client import LabelStudioError
from tasks.codec import Result, encode_labels
from tasks.schema import Labels, Schema

Task = dict[str, Any]
NO_MASKS: Masks = MappingProxyType({})


@dataclass
class Visit:
    """One serving of a task to an annotator. Times are `time.monotonic()` seconds.

    version, prediction, score: of the prediction that came with the task, None where none did. annotation: the id
    of what was submitted, a skip included; None while the task is held.
    """

    annotator: str
    task: int
    served_at: float
    version: str | None
    prediction: int | None
    score: float | None
    finished_at: float | None = None
    annotation: int | None = None
    skipped: bool = False


class Annotator:
    """One user with a logged-in session (`labelstudio.session`); use it from one thread."""

    def __init__(self, session: httpx.Client, project: int, schema: Schema, name: str) -> None:
        self.project = project
        self.schema = schema
        self.name = name
        self.visits: list[Visit] = []
        self._session = session

    def next_task(self) -> Task | None:
        """What "Label All Tasks" serves next, with the prediction of the current version; None: nothing is left.

        Label Studio also says that nothing is left while others hold all that is.
        """
        response = self._post(
            "/api/dm/actions", {"id": "next_task", "project": self.project}, {"project": str(self.project)}
        )
        if response.status_code == 404 and "no tasks" in response.text:
            return None
        task: Task = _checked(response).json()
        shown = shown_prediction(task)
        version, prediction, score = (shown["model_version"], shown["id"], shown["score"]) if shown else (None,) * 3
        self.visits.append(Visit(self.name, task["id"], time.monotonic(), version, prediction, score))
        return task

    def submit(self, task: Task, labels: Labels, lead_time: float, masks: Masks = NO_MASKS) -> int:
        """Submit labels, and masks corrected towards these (lead_time in seconds); returns the annotation's id."""
        result = annotated(self.schema, shown_prediction(task), labels, masks)
        return self._finish(task, result, {"lead_time": lead_time})

    def skip(self, task: Task, lead_time: float = 1.0) -> int:
        """Press Skip: an annotation with `was_cancelled`, which holds what the screen showed. By default Label
        Studio then offers the task to others.
        """
        shown = shown_prediction(task)
        result = [region | {"origin": "prediction"} for region in (shown["result"] if shown else [])]
        return self._finish(task, result, {"lead_time": lead_time, "was_cancelled": True})

    def _finish(self, task: Task, result: list[Result], more: Mapping[str, Any]) -> int:
        shown = shown_prediction(task)
        body = {
            **more,
            "result": result,
            "draft_id": 0,
            "parent_prediction": shown["id"] if shown else None,
            "parent_annotation": None,
            "unique_id": task["unique_lock_id"],
            "project": str(self.project),
        }
        path = f"/api/tasks/{task['id']}/annotations/"
        response = self._post(path, {"project": self.project}, body)
        # 409: an attempt before this one arrived although its answer did not.
        arrived_before = response.status_code == 409
        identifier = self._own_annotation(path) if arrived_before else int(_checked(response).json()["id"])
        visit = next(visit for visit in reversed(self.visits) if visit.task == task["id"])
        visit.finished_at, visit.annotation = time.monotonic(), identifier
        visit.skipped = "was_cancelled" in more
        return identifier

    def _own_annotation(self, path: str) -> int:
        user = _checked(self._session.get("/api/current-user/whoami")).json()["id"]
        own = [row["id"] for row in _checked(self._session.get(path)).json() if row["completed_by"] == user]
        return int(max(own))

    def _post(self, path: str, parameters: Mapping[str, Any], body: Mapping[str, Any]) -> httpx.Response:
        # A busy SQLite answers 500 "database is locked". Repeating is safe: a task held is served again to its
        # holder, and a `unique_id` that arrived before is answered with 409.
        for attempt in stamina.retry_context(on=_worth_retrying, attempts=8, timeout=120.0, wait_max=5.0):
            with attempt:
                response = self._session.post(path, params=parameters, json=body)
                if response.status_code >= 500:
                    response.raise_for_status()
        return response


def shown_prediction(task: Task) -> dict[str, Any] | None:
    """The prediction that the screen turns into the first draft of an annotation, None where there is none."""
    predictions = task.get("predictions") or []
    return predictions[0] if predictions else None


def annotated(schema: Schema, shown: Mapping[str, Any] | None, labels: Labels, masks: Masks = NO_MASKS) -> list[Result]:
    """The result that the screen submits: a region of the prediction keeps its id and score, with the origin
    "prediction" where the annotator left it (the `why` text among them) and "prediction-changed" where not; what the
    prediction did not have is "manual". Heads missing in `labels` are unticked. masks: the true ones, towards which
    those shown are corrected (`correction.marked`).
    """
    heads = {head.name for head in schema.heads}
    look = schema.roles.get("look")
    drawn = {head.name for head in schema.masks} | ({look.name} if look is not None else set())
    there: list[Result] = shown["result"] if shown else []
    suggested = {region["from_name"]: region for region in there if region["from_name"] not in drawn}
    result: list[Result] = []
    for region in encode_labels(schema, labels):
        before = suggested.get(region["from_name"])
        if before is None:
            result.append(region | {"id": uuid.uuid4().hex[:10], "origin": "manual"})
        else:
            origin = "prediction" if before["value"] == region["value"] else "prediction-changed"
            result.append(before | {"value": region["value"], "origin": origin})
    kept = [region | {"origin": "prediction"} for name, region in suggested.items() if name not in heads]
    return result + kept + marked(schema, [region for region in there if region["from_name"] in drawn], masks)


def answer(truth: Labels) -> Labels | None:
    """What an oracle submits: the labels it knows; None, so a skip, when it knows nothing."""
    return dict(truth) if any(truth.values()) else None


def take_turns(
    annotators: Sequence[Annotator],
    truth: Mapping[str, Labels],
    limit: int,
    look: float = 0.0,
    masks: Callable[[str], Masks] = lambda file: NO_MASKS,
) -> Iterator[Visit]:
    """Let the annotators answer `limit` tasks in turn, each holding its task while the others work.

    truth, masks: by the task's `file`. look: seconds each looks at a task at least; without any, a machine's pace can
    outrun the refill of the queue, which is made for people. Yields each visit once it is finished, skips included;
    ends early when nothing is left to serve. Stopping the iteration early leaves held tasks locked until Label
    Studio's task lock runs out.
    """
    held: dict[str, tuple[Task, float]] = {}
    taken, dry = 0, 0
    while held or (taken < limit and dry < len(annotators)):
        dry = 0
        for annotator in annotators:
            if annotator.name in held:
                task, since = held.pop(annotator.name)
                file = task["data"].get("file", "")
                labels, drawn = answer(truth.get(file, {})), masks(file)
                time.sleep(max(0.0, since + look - time.monotonic()))
                seconds = time.monotonic() - since
                if labels is None and not drawn:
                    annotator.skip(task, seconds)
                else:
                    annotator.submit(task, labels or {}, seconds, drawn)
                yield annotator.visits[-1]
            if taken < limit:
                next_task = annotator.next_task()
                if next_task is None:
                    dry += 1
                else:
                    held[annotator.name] = next_task, time.monotonic()
                    taken += 1


def served_order_spearman(visits: Iterable[Visit], published: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """Per published version, Spearman's correlation of the order of serving with the published score.

    published: version -> task id -> score, lowest first. The first time a task was served under a version counts,
    whoever got it; but see `_out_of_place`. 1.0 where fewer than two of a version's tasks are left to judge.
    """
    correlations = {}
    ordered = sorted(visits, key=lambda visit: visit.served_at)
    for version, scores in published.items():
        under = [visit for visit in ordered if visit.version == version and visit.task in scores]
        out = _out_of_place(under, ordered, published)
        served = [task for task in dict.fromkeys(visit.task for visit in under) if task not in out]
        if len(served) < 2:
            correlations[version] = 1.0
        else:
            result = spearmanr(range(len(served)), [scores[task] for task in served])
            correlations[version] = round(float(result.statistic), 12)  # rounding errors are no disorder
    return correlations


def _out_of_place(
    under: Sequence[Visit], ordered: Sequence[Visit], published: Mapping[str, Mapping[int, float]]
) -> set[int]:
    """Tasks that Label Studio itself keeps from their place in the order of a version that takes over from another.

    One that somebody held comes to the others when its holder skips it. One that somebody had skipped comes to the
    others only, so that whoever skipped it may get the next one before. And the first task served may have been chosen
    by the order before, if it is there too: Label Studio reads the project's version to choose a task, and again to
    show the prediction. (Annotators who take turns have one request under way at most.)

    under: the visits under the version; ordered: all; both by time.
    """
    if not under:
        return set()
    first = under[0]
    before = [visit for visit in ordered if visit.version != first.version and visit.served_at < first.served_at]
    touched = {
        visit.task
        for visit in before
        if visit.skipped or visit.finished_at is None or visit.finished_at > first.served_at
    }
    versions = {visit.version for visit in before}
    chosen_before = any(first.task in order for version, order in published.items() if version in versions)
    return touched | {first.task} if chosen_before else touched


def duplicates(visits: Iterable[Visit]) -> list[Visit]:
    """Visits that should not have been: the task already had an annotation from another visit, or another annotator
    held it. A task skipped by one and offered to the next is none, nor is a held task served again to its holder.
    """
    earlier: dict[int, list[Visit]] = defaultdict(list)
    wrong = []
    for visit in sorted(visits, key=lambda visit: visit.served_at):
        for other in earlier[visit.task]:
            held = other.finished_at is None or other.finished_at > visit.served_at
            if (held and other.annotator != visit.annotator) or (not held and not other.skipped):
                wrong.append(visit)
                break
        earlier[visit.task].append(visit)
    return wrong


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        request = response.request
        raise LabelStudioError(f"{request.method} {request.url.path}: {response.status_code} {response.text[:500]}")
    return response


def _worth_retrying(error: Exception) -> bool:
    return isinstance(error, httpx.TransportError | httpx.HTTPStatusError)
