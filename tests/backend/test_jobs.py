import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import update

from backend import jobs
from backend.settings import Settings
from demo.ports import any_port
from tasks.store import Store
from tasks.tables import Job, Project


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")()
    store = Store.open(url)
    for number in (1, 2):
        store.register_project(number, "<View/>")
    return store


def job(store: Store, number: int) -> Job:
    with store.begin() as session:
        return session.get_one(Job, number)


def test_a_waiting_request_takes_up_the_next_ones(store: Store) -> None:
    first = jobs.request(store, 1, "cycle", "once")
    assert jobs.request(store, 1, "cycle", "again") == first
    assert jobs.request(store, 2, "cycle", "another project") != first


def test_a_request_during_a_training_counts_towards_the_next(store: Store) -> None:
    first = jobs.request(store, 1, "cycle", "once")
    me = jobs.owner()
    assert jobs.claim(store, me).id == first
    second = jobs.request(store, 1, "cycle", "more annotations meanwhile")
    assert second != first
    assert jobs.claim(store, me) is None  # one at a time in a project
    jobs.finish(store, first, me)
    assert jobs.claim(store, me).id == second


def test_projects_do_not_wait_for_each_other(store: Store) -> None:
    jobs.request(store, 1, "cycle", "")
    other = jobs.request(store, 2, "cycle", "")
    me = jobs.owner()
    jobs.claim(store, me)
    assert jobs.claim(store, me).id == other


def test_only_one_of_many_workers_gets_a_job(store: Store) -> None:
    jobs.request(store, 1, "cycle", "")
    start, won = threading.Barrier(8), []

    def compete(number: int) -> None:
        start.wait()
        won.append(jobs.claim(store, f"machine{number}:1:abcd"))

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([claimed for claimed in won if claimed is not None]) == 1


def test_two_kinds_of_job_do_not_run_at_once_in_a_project(store: Store) -> None:
    """However the looks of two workers fall between each other: each sees the other's claim, or waits for it."""
    for _ in range(8):
        numbers = [jobs.request(store, 1, kind, "") for kind in ("cycle", "another kind")]
        start, won = threading.Barrier(2), []

        def compete(number: int, start: threading.Barrier = start, won: list[Job | None] = won) -> None:
            start.wait()
            won.append(jobs.claim(store, f"machine{number}:1:abcd"))

        threads = [threading.Thread(target=compete, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        claimed = [each for each in won if each is not None]
        assert len(claimed) == 1
        with store.begin() as session:
            session.execute(update(Job).where(Job.id.in_(numbers)).values(state="done"))


def test_a_dead_process_on_this_machine_gives_its_job_up_at_once(store: Store) -> None:
    number = jobs.request(store, 1, "cycle", "")
    script = "import sys; from backend import jobs; from tasks.store import Store;"
    script += "print(jobs.claim(Store.open(sys.argv[1]), jobs.owner()).id)"
    url = store.engine.url.render_as_string(hide_password=False)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script, url], capture_output=True, text=True, check=True, cwd=root, env=os.environ.copy()
    )
    assert int(done.stdout) == number
    assert job(store, number).state == "running"
    taken = jobs.claim(store, jobs.owner())
    assert taken is not None and taken.id == number and taken.attempts == 2


def test_another_machines_job_is_left_until_its_lease_runs_out(store: Store) -> None:
    number = jobs.request(store, 1, "cycle", "")
    assert jobs.waiting(store, jobs.owner())
    assert jobs.claim(store, "elsewhere:1:abcd") is not None
    assert jobs.claim(store, jobs.owner()) is None
    assert not jobs.waiting(store, jobs.owner())
    with store.begin() as session:
        session.execute(update(Job).values(lease_until=1.0))
    assert jobs.waiting(store, jobs.owner())
    assert jobs.claim(store, jobs.owner()).id == number


def test_the_same_number_after_a_restart_is_another_worker(store: Store) -> None:
    """In a container every start has the same host name and process number."""
    jobs.request(store, 1, "cycle", "")
    before, after = jobs.owner(), jobs.owner()
    assert jobs.claim(store, before) is not None
    assert jobs.claim(store, after) is not None


def test_a_container_that_shares_name_and_number_is_no_dead_process(store: Store) -> None:
    """Process numbers mean something only where they were given."""
    jobs.request(store, 1, "cycle", "")
    host = socket.gethostname()
    assert jobs.claim(store, f"{host}-c0ffee:{os.getpid()}:abcd") is not None
    assert jobs.claim(store, jobs.owner()) is None
    jobs.renew(store, f"{host}-c0ffee:1:abcd")
    assert jobs.workers(store) == [f"{host}-c0ffee:1:abcd"]


def test_a_worker_that_was_taken_for_dead_leaves_the_job_to_the_other(store: Store) -> None:
    number, me = jobs.request(store, 1, "cycle", ""), "elsewhere:1:abcd"
    jobs.claim(store, me)
    assert jobs.renew(store, me, number)
    with store.begin() as session:
        session.execute(update(Job).values(lease_until=1.0))
    other = jobs.owner()
    assert jobs.claim(store, other).id == number
    assert not jobs.renew(store, me, number)
    jobs.finish(store, number, me)
    jobs.release(store, number, me)
    assert (job(store, number).state, job(store, number).owner) == ("running", other)


def test_a_worker_that_lives_keeps_its_job(store: Store) -> None:
    number, me = jobs.request(store, 1, "cycle", ""), "elsewhere:1:abcd"
    jobs.claim(store, me)
    with store.begin() as session:
        session.execute(update(Job).values(lease_until=1.0))
    assert jobs.renew(store, me, number)
    assert jobs.claim(store, jobs.owner()) is None
    assert jobs.workers(store) == [me]
    assert job(store, number).owner == me


def test_a_worker_of_this_machine_that_is_gone_is_none(store: Store) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    host = jobs.owner().split(":")[0]
    jobs.renew(store, f"{host}:{done.pid}:abcd")
    assert jobs.workers(store) == []
    me = jobs.owner()
    jobs.renew(store, me)
    assert jobs.workers(store) == [me]


def test_an_error_is_tried_again_and_then_fails(store: Store) -> None:
    number, me = jobs.request(store, 1, "cycle", ""), jobs.owner()
    for attempt in range(1, jobs.ATTEMPTS + 1):
        assert jobs.claim(store, me).attempts == attempt
        jobs.finish(store, number, me, error="no luck")
    assert job(store, number).state == "failed" and job(store, number).error == "no luck"
    assert jobs.claim(store, me) is None


def test_a_worker_asked_to_stop_is_no_failed_attempt(store: Store) -> None:
    number, me = jobs.request(store, 1, "cycle", ""), jobs.owner()
    for _ in range(5):
        jobs.claim(store, me)
        jobs.release(store, number, me)
    assert job(store, number).state == "queued" and job(store, number).attempts == 0


def test_a_resumed_job_goes_on_with_its_version(store: Store) -> None:
    number = jobs.request(store, 1, "cycle", "")
    assert jobs.next_version(store, number) == jobs.next_version(store, number) == 1
    jobs.claim(store, jobs.owner())
    assert jobs.next_version(store, jobs.request(store, 1, "cycle", "")) == 2
    other = jobs.request(store, 2, "cycle", "")
    assert jobs.next_version(store, other, 6) == jobs.next_version(store, other, 9) == 7


def test_many_rings_are_one_wake_up(store: Store, tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    for _ in range(50):
        jobs.Bell(settings).ring(1)
    bell = jobs.Bell(settings)
    bell.ring(2)
    assert bell.rung() == {1, 2}
    assert bell.rung() == set()


def test_a_bell_that_is_out_of_order_costs_nothing_but_the_wait(tmp_path: Path) -> None:
    bell = jobs.Bell(Settings(state_dir=tmp_path, redis_url=f"redis://127.0.0.1:{any_port()}/0"))
    bell.ring(1)
    assert bell.rung() == set()


def test_projects_are_untouched_by_the_lock(store: Store) -> None:
    jobs.request(store, 1, "cycle", "")
    with store.begin() as session:
        assert session.get_one(Project, 1).label_config == "<View/>"
