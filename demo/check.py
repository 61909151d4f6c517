"""`demo --check`: the whole loop, unattended, in a fresh folder, judged by what Label Studio really did."""

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from sqlalchemy import func, select

from backend import status
from demo import labelstudio, oracle, run, truth
from demo.annotated import imported, judge
from demo.correction import known_masks
from demo.labelstudio import Account
from demo.oracle import Annotator, Visit
from demo.run import Running
from tasks import ledger, queue, reopen
from tasks.client import Client
from tasks.ranking.interleave import queue_key
from tasks.tables import Annotation, Entry, Job, Published

RETRAIN_AFTER = 26  # of a head of 30: it runs low, and is refilled, before a new order replaces it
RETRAININGS = 2
REFILLS = 1
ROUND = 10  # answers between two looks at what the worker did
LOOK = 2.0  # seconds an annotator looks at a task, quicker than people are
PATIENCE = 600.0  # seconds for the worker to catch up


def check(
    folder: Path,
    data: Path | None,
    label_config: Path | None,
    sample: int | None,
    console: Console,
    annotated: bool = False,
) -> dict[str, Any]:
    """Start the stack in a fresh folder, let two annotators answer in turn until it retrained twice and refilled once.

    annotated: the recorded labels are annotations that the admin imported, as some masks always are; two others review
    them, since Label Studio serves nobody what they annotated.

    Returns the figures of the README and `closed`, whether all of the loop held. images_per_second is end to end:
    tasks, over the seconds from the worker's start to the first published queue.
    """
    began = time.monotonic()
    with run.started(folder, data, label_config, sample, console, RETRAIN_AFTER, annotated) as running:
        before = imported(running)
        seconds = run.first_queue(running, console)
        first_queue = time.monotonic() - began
        second = labelstudio.sign_up(running.admin, running.credentials.annotator)
        others = annotated or bool(running.schema.masks)
        first = labelstudio.sign_up(running.admin, _reviewer()) if others else running.admin
        people = [
            Annotator(first, running.project, running.schema, "reviewer" if others else "admin"),
            Annotator(second, running.project, running.schema, "annotator"),
        ]
        visits = _annotate(running, people)
        value = _judge(running, visits, seconds, first_queue)
        if annotated:
            found = judge(running, before)
            value |= found
            held = found["reopened"] and not found["reopened_left_open"] and not found["annotations_changed"]
            value["closed"] = value["closed"] and bool(held)
        return value


def _reviewer() -> Account:
    return Account("reviewer@example.com", secrets.token_urlsafe(12))


def _annotate(running: Running, people: Sequence[Annotator]) -> list[Visit]:
    """Answer until two retrainings and a refill have happened, or nothing is left to answer.

    The first training took minutes and a retraining rests twice as long, so the first one is asked for in Label
    Studio, as an admin would by "Start training"; the second comes by itself, when enough was answered.
    """
    visits: list[Visit] = []
    read = running.folder
    while (trained := _events(running, "trained")) <= RETRAININGS or _events(running, "refilled") < REFILLS:
        if trained <= RETRAININGS and _events(running, "refilled") >= REFILLS and not _labels_needed(running):
            if trained == 1 and _idle(running):
                labelstudio.start_training(running.admin, running.project)
            running.stack.check()
            time.sleep(0.5)
            continue
        answered = list(oracle.take_turns(people, read.truth, ROUND, LOOK, known_masks(read)))
        visits += answered
        running.stack.check()
        if not answered:
            break
    _await_worker(running, visits)
    return visits


def _labels_needed(running: Running) -> int:
    training: dict[str, int] = status.of_project(running.store, running.settings, running.project)["training"]
    return training["labels_until_next"]


def _idle(running: Running) -> bool:
    with running.store.begin() as session:
        busy = select(Job.id).where(Job.project_id == running.project, Job.state.in_(["queued", "running"]))
        return session.scalars(busy).first() is None


def _events(running: Running, event: str) -> int:
    with running.store.begin() as session:
        query = select(func.count()).where(Entry.project_id == running.project, Entry.event == event)
        return session.scalar(query) or 0


def _took_over(running: Running) -> int:
    """How many of the trained versions became the model in force: the order of a refused one is never published."""
    with running.store.begin() as session:
        query = select(Entry.body).where(Entry.project_id == running.project, Entry.event == "trained")
        return sum(body["verdict"]["takes_over"] for body in session.scalars(query))


def _in_ledger(running: Running) -> set[int]:
    with running.store.begin() as session:
        query = select(Entry.annotation_id).where(Entry.project_id == running.project, Entry.event == "created")
        return {number for number in session.scalars(query) if number is not None}


def _await_worker(running: Running, visits: list[Visit]) -> None:
    """Give the worker time to hear of the last answers, to publish what it is training and to close what it left."""
    sent = {visit.annotation for visit in visits}
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        published = _events(running, "published") == _took_over(running)
        if published and sent <= _in_ledger(running) and not reopen.to_close(running.store, running.project):
            return
        running.stack.check()
        time.sleep(0.5)


def _judge(running: Running, visits: list[Visit], seconds: float, first_queue: float) -> dict[str, Any]:
    with running.store.begin() as session:
        published: dict[str, dict[int, float]] = {}
        for row in session.scalars(select(Published).where(Published.project_id == running.project)):
            published.setdefault(queue.queue_name(row.version), {})[row.task_id] = queue_key(row.rank)
        broken = ledger.verify(session, running.project)
        people = session.scalar(
            select(func.count()).where(Annotation.project_id == running.project, Annotation.origin == "person")
        )
    correlations = oracle.served_order_spearman(visits, published)
    sent = {visit.annotation for visit in visits}
    kept = sent & _in_ledger(running)
    retrains, refills = _events(running, "trained") - 1, _events(running, "refilled")
    client = Client(running.url, running.credentials.personal_access_token)
    remote = client.project(running.project)
    client.close()
    project = running.store.project(running.project)
    assert project is not None
    matches = project.published is not None and remote["model_version"] == queue.queue_name(project.published)
    twice = oracle.duplicates(visits)
    unranked = sum(visit.version is None for visit in visits)
    versions = truth.metrics_by_version(
        running.store, running.settings.state_dir, running.project, running.schema, running.folder
    )
    spearman = min(correlations.values(), default=0.0)
    value = {
        "tasks": remote["task_number"],
        "images_per_second": round(remote["task_number"] / seconds, 2),
        "seconds_to_first_queue": round(first_queue, 1),
        "served_order_spearman": spearman,
        "served_outside_order": unranked,
        "duplicates_served": len(twice),
        "annotations_sent": len(visits),
        "annotations_in_ledger": len(kept),
        "annotations_counted": people,
        "labels_corrected": truth.corrected(running.store, running.project),
        "ledger_breaks": broken,
        "retrains": retrains,
        "refused": retrains + 1 - _took_over(running),
        "refills": refills,
        "model_versions": versions,
        "queue_version_matches": matches,
    }
    value["closed"] = (
        retrains >= RETRAININGS
        and refills >= REFILLS
        and spearman == 1.0
        and not twice
        and unranked == 0
        and len(kept) == len(visits)
        and not broken
        and matches
    )
    return value
