"""Which tasks come next, and what their annotators are shown: a version's scores become the head of the queue."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import select

from backend import acquisition, embeddings, members, regions
from backend.learning.folds import HOLDOUT
from backend.registry import Registry, load_json
from backend.scored import Floats, of_version
from backend.settings import Settings
from tasks.codec import Result, to_targets
from tasks.labels import by_task, settle, standing
from tasks.marks import digest
from tasks.pace import active
from tasks.present import WITHOUT_SUGGESTION, phrases_of, present
from tasks.queue import Planned, answered_at_random, enter, open_head
from tasks.ranking.hybrid import Selection, Weights, greedy, weights_of
from tasks.ranking.interleave import Slot, lay_out
from tasks.reopen import reviewed
from tasks.schema import Head, Schema, parse_label_config
from tasks.similar import MOST, address, most_similar, to_html
from tasks.store import Store
from tasks.tables import Annotation, Project, Published, Task
from tasks.why import Case, Reason

log = structlog.get_logger()

DIVERSITY = "coverage"  # the distance to the nearest task would buy outliers: artefacts, other organs


def extend_head(
    store: Store,
    registry: Registry,
    settings: Settings,
    project_id: int,
    version: int,
    count: int,
    person: int | None = None,
) -> int:
    """Put up to `count` more tasks at the end of a version's order, in the store; returns how many.

    Tasks that wait for an annotation, and labelled ones that wait for a review, in one ranking. person: only what that
    user can be served.
    """
    planner = _Planner(store, registry, settings, project_id, version)
    planned = planner.plan(count, person)
    if settings.acquisition:
        acquisition.note(planner.folder, planner.alarm)
    return enter(store, project_id, version, planned)


def preview(store: Store, registry: Registry, settings: Settings, project_id: int, top: int) -> list[dict[str, Any]]:
    """The first `top` tasks of the queue: published and still open, then what would be published next.

    Each with place, task, kind, score (hybrid), uncertainty, disagreement, published and why. Empty without a model.
    """
    project = store.project(project_id)
    if project is None or project.published is None:
        return []
    settings = settings.tuned(project.extra_params)
    planner = _Planner(store, registry, settings, project_id, project.published)
    waiting = open_head(store, project_id)[:top]
    with store.begin() as session:
        query = select(Published).where(
            Published.project_id == project_id, Published.version == project.published, Published.task_id.in_(waiting)
        )
        rows = [
            (row.task_id, row.kind, row.score, row.why, True) for row in session.scalars(query.order_by(Published.rank))
        ]
    rows += [(item.task, item.kind, item.score, item.why, False) for item in planner.plan(top - len(rows))]
    found = []
    for place, (task, kind, score, why, published) in enumerate(rows, start=1):
        about = {"place": place, "task": task, "kind": kind, "score": score, "published": published, "why": why}
        found.append(about | planner.parts(task))
    return found


class _Planner:
    """The state of a project at one moment, beside the scores of one of its versions."""

    def __init__(self, store: Store, registry: Registry, settings: Settings, project_id: int, version: int) -> None:
        self.settings, self.version = settings, version
        self.phrases = phrases_of(settings.phrases)
        self.folder = registry.version(project_id, version)
        self.alarm: str | None = None  # why the acquisition function of one's own did not order
        with store.begin() as session:
            project = session.get_one(Project, project_id)
            self.schema: Schema = parse_label_config(project.label_config)
            self.stopped = project.stopped is not None
            query = select(Task).where(Task.project_id == project_id, Task.deleted_at.is_(None))
            self.tasks = {task.id: task for task in session.scalars(query)}
            there = select(Annotation).where(Annotation.project_id == project_id, Annotation.deleted_at.is_(None))
            said = by_task(session.scalars(there))
            self.settled = {number: settle(said.get(number, []), task.current) for number, task in self.tasks.items()}
            self.marked = {number for number, rows in said.items() if digest(self.schema, standing(rows).record)}
            self.answered = {number: {row.completed_by for row in rows} for number, rows in said.items()}
            self.reviewed = set(session.scalars(reviewed(project_id)))
            ranks = session.scalars(
                select(Published.task_id).where(Published.project_id == project_id, Published.version == version)
            ).all()
            self.published = set(ranks)
            self.reviewed_control = len(session.scalars(answered_at_random(project_id)).all())
        self.where = _backbones(registry, project_id, self.folder)
        self.scored = of_version(self.folder).under(self.schema.learnt)
        # A task whose image was changed since is not the one that was scored; imported probabilities know no images.
        looked_at = self.where is not None
        self.known = self.scored.still({task.id: task.pixels if looked_at else "" for task in self.tasks.values()})
        self.annotators = active(store, project_id)

    def plan(self, count: int, person: int | None = None) -> list[Planned]:
        """Lay out `count` slots: ranked tasks, and among them the control arm and the hold-out."""
        waiting = [task for task in self.known if not self._done(task) and task not in self.published]
        if person is not None:
            waiting = [task for task in waiting if person not in self.answered.get(task, ())]
        pool = np.array([task for task in waiting if self.tasks[task].fold != HOLDOUT], dtype=np.int64)
        frozen = [task for task in waiting if self.tasks[task].fold == HOLDOUT]
        rows = np.array([self.scored.row_of[int(task)] for task in pool], dtype=np.intp)
        selection, weights, own = self._rank(pool, rows, count)
        ranked = [int(task) for task in pool[selection.order]]
        if self.settings.random_slots:
            rng = np.random.default_rng([self.settings.seed, self.version, len(self.published)])
            slots = lay_out(ranked, pool.tolist(), frozen, count, self.reviewed_control, rng)
        else:
            slots = [Slot(task, "ranked") for task in ranked]
        place = {task: index for index, task in enumerate(ranked)}
        nearest = self._nearest([slot.task for slot in slots])
        planned = []
        for slot in slots:
            probabilities, drawn = self.scored.of(slot.task) or {}, self._drawn(slot.task)
            index = place.get(slot.task) if slot.kind == "ranked" else None
            reason: Reason = "random"
            if index is not None and own:
                reason = "acquisition"
            elif index is not None and self.scored.scores is not None:
                current, diversity = self.settled[slot.task].current, float(selection.diversity[index])
                reason = self.scored.reason(slot.task, weights, diversity, self.schema.heads, current)
            elif index is not None:
                reason = "diversity"
            known = bool(probabilities) or drawn is not None
            suggested = known and slot.kind not in WITHOUT_SUGGESTION
            text, shown = present(
                self.schema,
                self.phrases,
                probabilities,
                self.settled[slot.task].current,
                slot.kind if known else "abstain",
                reason,
                nearest.get(slot.task, ()),
                self.stopped,
                drawn,
            )
            score = None if index is None else float(selection.score[index])
            similar = self._pictured(nearest.get(slot.task, ())) if suggested else None
            planned.append(Planned(slot.task, slot.kind, score, text, shown, similar))
        return planned

    def _drawn(self, task: int) -> list[Result] | None:
        """What the version draws in a task's image; None where no masks were learnt."""
        return regions.of_task(self.folder, task, self.tasks[task].pixels, self.schema) if self.scored.drawn else None

    def parts(self, task: int) -> dict[str, float | None]:
        """The uncertainty and disagreement of a task; None where nothing is learnt yet."""
        scores, row = self.scored.scores, self.scored.row_of.get(task)
        if scores is None or row is None:
            return {"uncertainty": None, "disagreement": None}
        return {"uncertainty": float(scores.uncertainty[row]), "disagreement": float(scores.disagreement[row])}

    def _done(self, task: int) -> bool:
        """Reviewed, labelled by no annotation, or answered by everybody who works here.

        Label Studio serves a task to nobody who annotated or skipped it.
        """
        row = self.tasks[task]
        labelled = row.is_labeled or row.overlap_before is not None
        if labelled and (task in self.reviewed or not row.annotations):
            return True
        answered = self.answered.get(task, set())
        return self.annotators <= answered if self.annotators else row.cancelled > 0

    def _rank(self, pool: NDArray[np.int64], rows: NDArray[np.intp], count: int) -> tuple[Selection, Weights, bool]:
        """Select the best of the pool; returns also whether an acquisition function of one's own did.

        With nothing learnt yet, coverage of what the images look like alone orders.
        """
        weights = self._weights(pool)
        points = self._points(pool.tolist())
        given = [task for task in self.known if self._done(task) or task in self.published]
        reference = self._points(given) if given else None
        if self.scored.scores is None:
            base: Floats = np.zeros(len(pool), dtype=np.float32)
            if self.where is None:
                return _highest(base, count), weights, False
            return greedy(base, points, 1.0, count, reference, DIVERSITY), weights, False
        if self.settings.acquisition and len(pool):
            try:
                own = acquisition.scores(self.settings.acquisition, self._pool(pool, rows, points, reference, count))
                return _highest(own, count), weights, True
            except acquisition.AcquisitionError as error:
                log.error("the acquisition function cannot be used", version=self.version, error=str(error))
                self.alarm = str(error)
        base = self.scored.scores.base(weights)[rows]
        if self.where is None:
            return _highest(base, count), weights, False
        return greedy(base, points, weights.diversity, count, reference, DIVERSITY), weights, False

    def _pool(
        self, pool: NDArray[np.int64], rows: NDArray[np.intp], points: Floats, reference: Floats | None, count: int
    ) -> acquisition.Pool:
        assert self.scored.scores is not None  # nothing is asked before anything is learnt
        probabilities = {name: p[rows] for name, p in self.scored.probabilities.items()}
        heads = tuple(head for head in self.schema.heads if head.name in probabilities)
        return acquisition.Pool(
            heads=heads,
            ids=pool,
            members=members.load(self.folder / "members.npz", pool, probabilities),
            probabilities=probabilities,
            recorded={head.name: self._recorded(head, pool) for head in heads},
            uncertainty=self.scored.scores.uncertainty[rows],
            disagreement=self.scored.scores.disagreement[rows],
            embeddings=points,
            reference=points[:0] if reference is None else reference,
            count=count,
        )

    def _recorded(self, head: Head, pool: NDArray[np.int64]) -> Floats:
        """The labels on record (n, C), as far as the present label config knows them."""
        known, current = set(head.classes), [self.settled[int(task)].current for task in pool]
        return to_targets([head], [row if known >= set(row.get(head.name, ())) else {} for row in current])[head.name]

    def _weights(self, pool: NDArray[np.int64]) -> Weights:
        recorded = sum(bool(self.settled[int(task)].current) or int(task) in self.marked for task in pool)
        return weights_of(self.settings.preset, recorded=2 * recorded > len(pool))

    def _points(self, tasks: Sequence[int]) -> Floats:
        """Embeddings (n, D) by the first backbone, the one whose distances count; D is 0 where there is none."""
        if self.where is None:
            return np.zeros((len(tasks), 0), dtype=np.float32)
        return embeddings.load(self.where, 0, [str(self.tasks[task].pixels) for task in tasks])

    def _nearest(self, tasks: Sequence[int]) -> dict[int, list[Case]]:
        """For each task the reviewed tasks most like it, with their labels; of equal images the first."""
        images = {self.tasks[task].pixels: task for task in reversed(self.known) if self.settled[task].adjudicated}
        reviewed = sorted(images.values())
        if not reviewed or not tasks or self.where is None:
            return {}
        best = most_similar(self._points(tasks), self._points(reviewed), MOST)
        return {
            task: [(reviewed[index], self.settled[reviewed[index]].labels) for index in row]
            for task, row in zip(tasks, best.tolist(), strict=True)
        }

    def _pictured(self, cases: Sequence[Case]) -> str | None:
        """The cases as HTML, where the label config has a place for it."""
        if "similar" not in self.schema.roles:
            return None
        below = httpx.URL(self.settings.label_studio_public_url or self.settings.label_studio_url).path.rstrip("/")
        found = {task: address(self.tasks[task].image, task, below) for task, _ in cases}
        pictures = {task: where for task, where in found.items() if where is not None}
        return to_html(self.schema, cases, pictures, self.phrases) or None


def _backbones(registry: Registry, project_id: int, folder: Path) -> Path | None:
    """Where a version's embeddings are; None where its probabilities were made elsewhere."""
    choice = folder / "backbones.json"
    return registry.backbones(project_id, load_json(choice)["number"]) if choice.exists() else None


def _highest(score: Floats, count: int) -> Selection:
    """The order where distances count nothing: highest first, equal ones by row."""
    order = np.argsort(-score, kind="stable")[:count]
    return Selection(order, score[order], np.zeros(len(order), dtype=np.float32))
