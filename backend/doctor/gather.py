"""Gathering the facts: what the store knows, what Label Studio shows; whatever cannot be had is Unknown."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from math import inf
from typing import Literal

import httpx
from sqlalchemy import func, or_, select
from sqlalchemy.exc import NoResultFound, SQLAlchemyError
from sqlalchemy.orm import Session

from backend import connection, jobs
from backend.doctor import machine
from backend.doctor.findings import Maybe, T, Unknown
from backend.doctor.observed import SERVER_SETTINGS, Answer, Facts, ProjectFacts, Serving, Stored
from backend.label_studio import open_client
from backend.settings import Settings
from tasks import pace, queue, server
from tasks.client import Client, LabelStudioError
from tasks.referred import REFERRED, with_expert
from tasks.store import Store
from tasks.tables import Annotation, Entry, Job, Project, Published, Task, Version

TIMEOUT = 20.0  # seconds of a call
LATELY = 50  # annotations by which the serving is judged
MONTH = 30 * 24 * 3600.0  # seconds
CONNECTED = select(Project.id).where(Project.connection != "none").order_by(Project.id)
NAMED = 3  # unusable images given in full


def gather(settings: Settings, project: int | None) -> tuple[Facts, list[ProjectFacts]]:
    """The facts of the backend, and of all its projects or the one that is named (also where it is not connected)."""
    store = ask(lambda: Store.open(settings.database))
    numbers = _ask_store(store, lambda store, session: list(session.scalars(CONNECTED)))
    wanted = [project] if project is not None else [] if isinstance(numbers, Unknown) else numbers
    stored = {number: _ask_store(store, partial(_stored, number)) for number in wanted}
    polls = [found.row.connection == "poll" for found in stored.values() if not isinstance(found, Unknown)]
    client = ask(partial(open_client, settings, TIMEOUT, attempts=2))
    try:
        facts = _backend(settings, store, numbers, client, poll=bool(polls) and all(polls))
        return facts, [_project(facts, store, client, number, stored[number]) for number in wanted]
    finally:
        if not isinstance(client, Unknown):
            client.close()


def ask(call: Callable[[], T]) -> Maybe[T]:
    """What the call returns; Unknown, with the reason, where it fails as calls over a network and on disks do."""
    try:
        return call()
    except LabelStudioError as error:
        return Unknown(str(error), error.status)
    except NoResultFound:
        return Unknown("the project is not connected to this backend", 404)
    except (httpx.HTTPError, SQLAlchemyError, OSError) as error:
        return Unknown(f"{type(error).__name__}: {error}")


def _ask_store(store: Maybe[Store], question: Callable[[Store, Session], T]) -> Maybe[T]:
    if isinstance(store, Unknown):
        return store

    def answer() -> T:
        with store.begin() as session:
            return question(store, session)

    return ask(answer)


def _ask_label_studio(client: Maybe[Client], usable: Maybe[object], question: Callable[[Client], T]) -> Maybe[T]:
    """The answer; Unknown without asking where Label Studio does not even accept our token."""
    if isinstance(client, Unknown):
        return client
    if isinstance(usable, Unknown):
        return Unknown("Label Studio does not answer, or not to our token")
    return ask(lambda: question(client))


def _backend(
    settings: Settings, store: Maybe[Store], numbers: Maybe[list[int]], client: Maybe[Client], *, poll: bool
) -> Facts:
    address = _ask_label_studio(client, None, lambda client: Answer(*server.health(client)))
    up = address if isinstance(address, Unknown) or address.status == 200 else Unknown("Label Studio does not answer")
    token = settings.label_studio_token.get_secret_value()
    whoami = _ask_label_studio(client, up if token else Unknown("no token"), lambda client: client.user())
    ours = connection.connection_of(settings)
    urls: dict[Literal["ml", "webhook"], str] = {"ml": ours.url, "webhook": ours.webhook_url}
    return Facts(
        settings=settings,
        now=time.time(),
        store=numbers if isinstance(numbers, Unknown) else len(numbers),
        address=address,
        whoami=whoami,
        url_refusals={
            kind: _ask_label_studio(client, whoami, partial(server.url_refusal, kind=kind, url=url))
            for kind, url in urls.items()
        },
        server=_ask_label_studio(client, whoami, lambda client: server.server_settings(client, SERVER_SETTINGS)),
        flags=_ask_label_studio(client, whoami, server.feature_flags),
        members=_ask_label_studio(client, whoami, lambda client: client.members()),
        workers=_ask_store(store, lambda store, _: jobs.workers(store)),
        machine=ask(lambda: machine.observe(settings)),
        connection=ours,
        poll=poll,
    )


def _project(
    facts: Facts, store: Maybe[Store], client: Maybe[Client], number: int, stored: Maybe[Stored]
) -> ProjectFacts:
    def refill(client: Client) -> bool:
        assert not isinstance(store, Unknown)  # the facts of the project come from it
        return pace.wants_refill(store, client, number)

    known = facts.whoami if not isinstance(stored, Unknown) else stored
    recorded = _ask_store(store, lambda store, _: connection.recorded(store, facts.settings, number))
    return ProjectFacts(
        id=number,
        connection=facts.connection if isinstance(recorded, Unknown) else recorded,
        backend=facts,
        stored=stored,
        remote=_ask_label_studio(client, facts.whoami, lambda client: client.project(number)),
        ml_backends=_ask_label_studio(client, facts.whoami, lambda client: client.ml_backends(number)),
        webhooks=_ask_label_studio(client, facts.whoami, lambda client: client.webhooks(number)),
        model_versions=_ask_label_studio(client, facts.whoami, lambda client: client.model_versions(number)),
        wants_refill=_ask_label_studio(client, known, refill),
    )


def _stored(project_id: int, store: Store, session: Session) -> Stored:
    row = session.get_one(Project, project_id)
    living = (Task.project_id == project_id, Task.deleted_at.is_(None))
    broken = (*living, Task.image_error.is_not(None))
    of_project = (Annotation.project_id == project_id, Annotation.origin.in_(["person", "skipped"]))
    month_ago = datetime.fromtimestamp(time.time() - MONTH, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    people = select(func.count(Annotation.completed_by.distinct())).where(
        *of_project, Annotation.created_at >= month_ago
    )
    pushed = (
        select(func.count())
        .select_from(Published)
        .join(Task, (Task.project_id == Published.project_id) & (Task.id == Published.task_id))
        .where(
            *living,
            Published.version == (row.published or 0),
            Published.prediction_id.is_not(None),
            Task.id.not_in(with_expert(project_id)),
        )
    )
    failed = session.execute(select(Task.id, Task.image_error).where(*broken).order_by(Task.id).limit(NAMED))
    return Stored(
        row=row,
        job=session.scalars(select(Job).where(Job.project_id == project_id).order_by(Job.id.desc()).limit(1)).first(),
        tasks=session.scalar(select(func.count()).select_from(Task).where(*living)) or 0,
        pushed=session.scalar(pushed) or 0,
        waiting=len(queue.open_head(store, project_id, skipped=False)),
        active=pace.annotators(store, project_id),
        annotators=session.scalar(people) or 0,
        images_broken=session.scalar(select(func.count()).select_from(Task).where(*broken)) or 0,
        images_failed=tuple((task, reason or "") for task, reason in failed),
        servings=tuple(_servings(session, row)),
    )


def _servings(session: Session, project: Project) -> list[Serving]:
    """The last LATELY tasks served since the published order took over, by what came of them."""
    version = session.get(Version, (project.id, project.published or 0))
    if version is None or version.published_at is None:
        return []
    of_project = (Annotation.project_id == project.id, Annotation.deleted_at.is_(None))
    referred = select(Entry.task_id).where(Entry.project_id == project.id, Entry.event == REFERRED)
    served = session.scalars(
        select(Annotation)
        .where(
            *of_project,
            Annotation.origin.in_(["person", "skipped", "empty"]),
            Annotation.lead_time.is_not(None),
            or_(Annotation.parent_prediction.is_not(None), Annotation.task_id.not_in(referred)),  # the expert's own
        )
        .order_by(Annotation.created_at.desc())
        .limit(LATELY)
    ).all()
    of_order = select(Published.task_id, Published.at).where(Published.project_id == project.id)
    entered = dict(session.execute(of_order.where(Published.version == version.number)).all())
    taken = dict.fromkeys(entered, inf)  # when a task of the head was first annotated or skipped as such
    for task, moment in session.execute(select(Annotation.task_id, Annotation.created_at).where(*of_project)):
        if task in taken and (made := _seconds(moment)) > entered[task]:
            taken[task] = min(taken[task], made)
    begun_from = select(Published.prediction_id, Published.version, Published.rank).where(
        Published.project_id == project.id,
        Published.prediction_id.in_({row.parent_prediction for row in served if row.parent_prediction is not None}),
    )
    place = {number: (name, rank) for number, name, rank in session.execute(begun_from)}
    return [
        Serving(
            task=row.task_id,
            by=row.completed_by,
            at=at,
            version=began[0],
            rank=began[1],
            head_open=any(entered[task] <= at < taken[task] for task in taken),
        )
        for row in served
        if (at := _seconds(row.created_at) - (row.lead_time or 0.0)) >= version.published_at
        for began in [place.get(row.parent_prediction, (None, None))]
    ]


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
