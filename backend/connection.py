"""Setting a project up, guarding what was set up, and taking it down.

How a project was connected is recorded in the ledger, so that a worker on another machine guards the address that was
set up, and disconnecting finds the sampling that was there before.
"""

import time
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Select, func, select, update

from backend.settings import Settings
from tasks import expert, identity, ledger, project, queue, reopen
from tasks.client import Client, LabelStudioError
from tasks.project import DEFAULT_SAMPLING, SAMPLING, Change, Connection
from tasks.referred import with_expert
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Entry, Job, Project, Task, Version

log = structlog.get_logger()


def connection_of(settings: Settings, poll: bool = False) -> Connection:
    """How the settings would have a project connected."""
    return Connection(settings.url, settings.username, settings.password.get_secret_value(), poll)


def recorded(store: Store, settings: Settings, project_id: int) -> Connection:
    """How the project was connected last: this process may have our address from other settings."""
    wanted = connection_of(settings)
    with store.begin() as session:
        last = session.scalars(_connected(project_id).limit(1)).first()
    return wanted if last is None else replace(wanted, backend_url=last["url"], poll=last["poll"])


def set_up(
    store: Store, client: Client, settings: Settings, project_id: int, *, poll: bool = False, dry_run: bool = False
) -> list[str]:
    """Connect a project and look after it from now on; returns a sentence for each change, none where all was right.

    dry_run: nothing is changed. Only in the project's turn. Raises SchemaError where nothing can be learnt,
    LabelStudioError with what to do.
    """
    remote = client.project(project_id)
    parse_label_config(remote["label_config"])
    known = store.project(project_id)
    if known is not None:
        identity.check(project_id, known.created_at, remote["created_at"])
    before, after = "none" if known is None else known.connection, "poll" if poll else "setup"
    wanted, published = connection_of(settings, poll), _published(client, known)
    ours = [] if before == after else [f"backend: project {project_id} is looked after, connected by {after}"]
    if dry_run:
        return [change.what for change in project.connection_changes(client, project_id, wanted, published)] + ours
    store.register_project(
        project_id,
        remote["label_config"],
        title=remote["title"],
        created_at=remote["created_at"],
        connection=before,
    )
    _record(store, project_id, wanted, remote["sampling"])  # before anything changes: a kill must not lose it
    try:
        changes = project.connect(client, project_id, wanted, published)
    except LabelStudioError:
        _mark(store, project_id, before)  # Label Studio's /setup may have come
        raise
    _mark(store, project_id, after)
    return changes + ours


def take_down(store: Store, client: Client, settings: Settings, project_id: int, *, dry_run: bool = False) -> list[str]:
    """Disconnect a project and look after it no more; returns a sentence for each change.

    Annotations, predictions, models and the ledger stay. dry_run: nothing is changed. Only in the project's turn: the
    worker must repair nothing meanwhile. Raises LabelStudioError.
    """
    known = store.project(project_id)
    with store.begin() as session:
        numbers = session.scalars(select(Version.number).where(Version.project_id == project_id)).all()
        samplings = [body["sampling"] for body in session.scalars(_connected(project_id))]
        waiting = len(session.scalars(with_expert(project_id)).all())
        held = session.scalar(
            select(func.count()).where(
                Task.project_id == project_id,
                Task.overlap_before.is_not(None),
                Task.id.not_in(with_expert(project_id)),
            )
        )
    plan: list[Change] = []
    if _exists(client, project_id, known):
        sampling = next((name for name in samplings if name != SAMPLING), DEFAULT_SAMPLING)
        versions = [queue.queue_name(number) for number in numbers]
        wanted = recorded(store, settings, project_id)
        plan = project.disconnection_changes(client, project_id, wanted, sampling, versions)
        if waiting or (known is not None and known.expert_view is not None):
            what = f"expert: flagged tasks that waited ({waiting}) are closed, and their tab is removed"
            plan.append(Change(what, partial(expert.withdraw, store, client, project_id)))
        if held:
            close = partial(reopen.close_all, store, client, project_id)
            plan.append(Change(f"tasks: {held} that were held open for review are closed", close))
    if known is not None and known.connection != "none":
        # Last: Label Studio sends /setup with each call about the ML backend, which looks like a new connection.
        leave = partial(_leave, store, project_id, [change.what for change in plan])
        plan.append(Change(f"backend: project {project_id} is looked after no more", leave))
    if not dry_run:
        for change in plan:
            change.apply()
    return [change.what for change in plan]


def _exists(client: Client, project_id: int, known: Project | None) -> bool:
    """Whether Label Studio still has the project, and not another one of its number."""
    try:
        remote = client.project(project_id)
        identity.check(project_id, known.created_at if known else None, remote["created_at"])
    except identity.OtherLabelStudio:
        return False
    except LabelStudioError as error:
        if error.status != 404 or known is None:
            raise
        return False
    return True


def _leave(store: Store, project_id: int, changes: list[str]) -> None:
    with store.begin() as session:
        session.execute(
            update(Job)
            .where(Job.project_id == project_id, Job.state == "queued")
            .values(state="failed", error="the project was disconnected", finished_at=time.time())
        )
        left = session.get_one(Project, project_id)
        left.connection, left.alarms = "none", []
        ledger.append(session, project_id, "disconnected", {"changes": changes})


def guard(store: Store, client: Client, settings: Settings, project_id: int) -> list[str]:
    """Keep Label Studio's events coming: repair the webhook of a project that was set up; returns alarms.

    A sentence for each repair, once; for a project connected by hand, what is wrong, as long as it is. A repair that
    Label Studio refuses is an alarm too: the worker goes on, asking for changes as often as it polls.
    """
    known = store.project(project_id)
    assert known is not None  # by the caller
    wanted = recorded(store, settings, project_id)
    if known.connection == "setup":
        try:
            repaired = project.repair_webhook(client, project_id, wanted)
        except LabelStudioError as error:
            return [f"the webhook cannot be repaired: {error}"]
        if repaired:
            log.warning("the webhook was changed in Label Studio and is repaired", project=project_id, changes=repaired)
            with store.begin() as session:
                ledger.append(session, project_id, "repaired", {"changes": repaired})
        return [f"changed in Label Studio and repaired: {what}" for what in repaired]
    if known.connection == "hand" and not project.hears_events(client, project_id, wanted):
        return [
            "the project's webhook is missing, switched off or without authorization: changes are noticed only every"
            f" {settings.poll_seconds:g} s. Run `second-look setup --project {project_id}`"
        ]
    return []


def _published(client: Client, known: Project | None) -> str:
    """The name of the version that orders the queue, as long as Label Studio has its predictions."""
    if known is None or known.published is None:
        return ""
    name = queue.queue_name(known.published)
    return name if name in client.model_versions(known.id) else ""


def _connected(project_id: int) -> Select[tuple[dict[str, Any]]]:
    """How the project was connected, the last time first."""
    return (
        select(Entry.body).where(Entry.project_id == project_id, Entry.event == "connected").order_by(Entry.seq.desc())
    )


def _record(store: Store, project_id: int, wanted: Connection, sampling: str) -> None:
    body = {"url": wanted.url, "poll": wanted.poll, "sampling": sampling}
    with store.begin() as session:
        last = session.scalars(_connected(project_id).limit(1)).first()
        if last is None or sampling != SAMPLING or last | {"sampling": sampling} != body:
            ledger.append(session, project_id, "connected", body)


def _mark(store: Store, project_id: int, connection: str) -> None:
    with store.begin() as session:
        session.get_one(Project, project_id).connection = connection
