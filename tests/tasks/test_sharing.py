"""Several workers on one project of a real Label Studio at the same moment, on either database."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from demo.labelstudio import call
from tasks import ledger, queue
from tasks.client import Client
from tasks.queue import Planned
from tasks.store import Store
from tasks.tables import Published, Version

Make = Callable[..., Any]


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, scene: Make) -> Iterator[Any]:
    """A project of six tasks that the store knows."""
    s = scene(6)
    if request.param == "postgresql":
        config = s.store.project(s.project).label_config
        s.store = Store.open(request.getfixturevalue("postgresql")())
        s.store.register_project(s.project, config)
    s.reconcile()
    yield s
    s.store.engine.dispose()


def at_once(*works: Callable[[], object]) -> None:
    start, failed = threading.Barrier(len(works)), []

    def run(work: Callable[[], object]) -> None:
        start.wait()
        try:
            work()
        except Exception as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def ordered(s: Any) -> list[Planned]:
    """What a plan would be: all tasks, and a version to publish them under."""
    with s.store.begin() as session:
        session.add(Version(project_id=s.project, number=1, created_at=0, seconds=1, schema="", labels=0, metrics={}))
    return [Planned(task, "ranked", 0.5, "because", s.choices(bom="malignant") + s.why("because")) for task in s.ids()]


def there(s: Any) -> Counter[int]:
    """How many predictions each task has in Label Studio."""
    return Counter(
        row["task"] for row in call(s.users[s.admin], "GET", "/api/predictions", params={"project": s.project})
    )


def test_two_reconciles_at_once_write_each_event_once(shared: Any) -> None:
    """Whoever comes second finds what the first one wrote, even where both have read the same pages."""
    first, second, *_ = shared.ids()
    edited = shared.submit(first, shared.choices(bom="benign"))
    shared.reconcile()
    before = len(shared.ledger())
    for answer in ("malignant", "benign", "malignant"):
        shared.edit(edited, shared.choices(bom=answer))
        added = shared.submit(second, shared.choices(bom=answer))
        at_once(shared.reconcile, shared.reconcile)
        assert sorted(shared.events(before)) == sorted(
            [("changed", edited, shared.admin), ("created", added, shared.admin)]
        )
        before = len(shared.ledger())
    shared.assert_equal()
    with shared.store.begin() as session:
        assert ledger.verify(session, shared.project) == []


def test_two_workers_publish_an_order_once(shared: Any) -> None:
    planned = ordered(shared)

    def publish() -> None:
        with shared.store.turn(shared.project):
            queue.enter(shared.store, shared.project, 1, planned)
            queue.push(shared.store, shared.client, shared.project, 1)
            queue.flip(shared.store, shared.client, shared.project, 1)

    at_once(publish, publish, publish)
    assert there(shared) == Counter(shared.ids())
    assert [entry.event for entry in shared.ledger()].count("published") == 1


def test_an_import_that_was_cut_off_is_waited_for_and_not_sent_again(shared: Any, label_studio: Any) -> None:
    queue.enter(shared.store, shared.project, 1, ordered(shared))
    cut_off = Client(label_studio.url, label_studio.token)
    under_way: list[httpx.Request] = []

    def lose(request: httpx.Request) -> None:
        """The connection breaks; the request goes on its way, slowly."""
        if request.url.path.endswith("/import/predictions"):
            under_way.append(
                httpx.Request(request.method, request.url, headers=request.headers, content=request.content)
            )
            raise httpx.ReadTimeout("no answer", request=request)

    cut_off.http.event_hooks = {"request": [lose]}
    with pytest.raises(httpx.ReadTimeout):
        queue.push(shared.store, cut_off, shared.project, 1)
    cut_off.close()
    for _ in range(2):
        with pytest.raises(queue.Unsettled, match="v1-queue-order"):
            queue.push(shared.store, shared.client, shared.project, 1)
    httpx.Client().send(under_way[0]).raise_for_status()
    assert queue.push(shared.store, shared.client, shared.project, 1) == 0
    assert there(shared) == Counter(shared.ids())
    with shared.store.begin() as session:
        assert all(row.prediction_id for row in session.query(Published).filter_by(project_id=shared.project))


def test_an_import_that_never_arrived_is_sent_again_in_the_end(shared: Any) -> None:
    queue.enter(shared.store, shared.project, 1, ordered(shared))
    with shared.store.begin() as session:  # killed after it was marked as sent, before it was
        session.execute(update(Published).values(prediction_id=queue.SENT, at=time.time()))
    with pytest.raises(queue.Unsettled):
        queue.push(shared.store, shared.client, shared.project, 1)
    assert there(shared) == Counter()
    with shared.store.begin() as session:
        session.execute(update(Published).values(at=time.time() - queue.UNDER_WAY))
    assert queue.push(shared.store, shared.client, shared.project, 1) == 6
    assert there(shared) == Counter(shared.ids())
