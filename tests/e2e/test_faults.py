"""What must not break the loop: a worker killed while it trains, and webhooks that never arrive."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from sqlalchemy import select

from demo import labelstudio, oracle
from demo.oracle import Annotator
from demo.run import Running
from tasks import ledger
from tasks.queue import queue_name
from tasks.tables import Annotation, Entry, Job, Version


def job(running: Running, version: int) -> Job | None:
    with running.store.begin() as session:
        return session.scalars(select(Job).where(Job.version == version)).first()


def training(running: Running, version: int) -> bool:
    found = job(running, version)
    return found is not None and found.step == "training backbones" and found.done > 0


def complete(running: Running, version: int) -> bool:
    found = job(running, version)
    return found is not None and found.state == "done"


def serving(running: Running) -> str:
    project = labelstudio.call(running.admin, "GET", f"/api/projects/{running.project}/")
    return str(project["model_version"])


def people(running: Running) -> list[Annotator]:
    second = labelstudio.sign_up(running.admin, running.credentials.annotator)
    return [
        Annotator(session, running.project, running.schema, name)
        for session, name in ((running.admin, "admin"), (second, "annotator"))
    ]


def test_the_loop_survives_kills_and_lost_webhooks(
    start_loop: Callable[[], AbstractContextManager[Running]], until: Callable[..., None]
) -> None:
    with start_loop() as running:
        # Killed in the middle of the first training, the next worker goes on with the same version.
        until(lambda: training(running, 1))
        running.stack.kill("worker")
        assert not complete(running, 1)
        running.stack.restart("worker")
        until(lambda: complete(running, 1))
        assert job(running, 1).attempts == 2
        assert serving(running) == queue_name(1)

        # No webhook arrives from here on: every answer is found by asking.
        for hook in labelstudio.call(running.admin, "GET", "/api/webhooks/", params={"project": running.project}):
            labelstudio.call(running.admin, "DELETE", f"/api/webhooks/{hook['id']}/")
        annotators = people(running)
        visits = list(oracle.take_turns(annotators, running.folder.truth, 12))
        assert len(visits) == 12
        sent = {visit.annotation for visit in visits}

        def counted() -> set[int | None]:
            with running.store.begin() as session:
                return set(session.scalars(select(Annotation.id).where(Annotation.origin == "person")))

        until(lambda: sent <= counted())

        # Killed again while it retrains: the queue stays on the last complete version, and annotators go on.
        until(lambda: (found := job(running, 2)) is not None and found.state == "running")
        running.stack.kill("worker")
        assert serving(running) == queue_name(1)
        more = list(oracle.take_turns(annotators, running.folder.truth, 4))
        assert [visit.version for visit in more] == [queue_name(1)] * 4
        running.stack.restart("worker")
        until(lambda: complete(running, 2))
        assert serving(running) == queue_name(2)

        with running.store.begin() as session:
            assert session.scalars(select(Version.number).order_by(Version.number)).all() == [1, 2]
            created = session.scalars(select(Entry.annotation_id).where(Entry.event == "created")).all()
            assert sorted(created) == sorted(visit.annotation for visit in visits + more)  # each once
            assert ledger.verify(session, running.project) == []
            assert session.scalars(select(Entry.event).where(Entry.event == "published")).all() == ["published"] * 2
