import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import update

from backend import jobs
from backend.settings import Settings
from tasks.store import Store
from tasks.tables import Job, Project


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
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
    jobs.finish(store, first)
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


def test_a_dead_process_on_this_machine_gives_its_job_up_at_once(store: Store) -> None:
    number = jobs.request(store, 1, "cycle", "")
    script = "import sys; from backend import jobs; from tasks.store import Store;"
    script += "print(jobs.claim(Store.open(sys.argv[1]), jobs.owner()).id)"
    url = store.engine.url.render_as_string()
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
    assert jobs.claim(store, "elsewhere:1:abcd") is not None
    assert jobs.claim(store, jobs.owner()) is None
    with store.begin() as session:
        session.execute(update(Job).values(lease_until=1.0))
    assert jobs.claim(store, jobs.owner()).id == number


def test_the_same_number_after_a_restart_is_another_worker(store: Store) -> None:
    """In a container every start has the same host name and process number."""
    jobs.request(store, 1, "cycle", "")
    before, after = jobs.owner(), jobs.owner()
    assert jobs.claim(store, before) is not None
    assert jobs.claim(store, after) is not None


def test_a_worker_that_lives_keeps_its_job(store: Store) -> None:
    number, me = jobs.request(store, 1, "cycle", ""), "elsewhere:1:abcd"
    jobs.claim(store, me)
    with store.begin() as session:
        session.execute(update(Job).values(lease_until=1.0))
    jobs.renew(store, me)
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
        jobs.finish(store, number, error="no luck")
    assert job(store, number).state == "failed" and job(store, number).error == "no luck"
    assert jobs.claim(store, me) is None


def test_a_worker_asked_to_stop_is_no_failed_attempt(store: Store) -> None:
    number, me = jobs.request(store, 1, "cycle", ""), jobs.owner()
    for _ in range(5):
        jobs.claim(store, me)
        jobs.release(store, number)
    assert job(store, number).state == "queued" and job(store, number).attempts == 0


def test_a_resumed_job_goes_on_with_its_version(store: Store) -> None:
    number = jobs.request(store, 1, "cycle", "")
    assert jobs.next_version(store, number) == jobs.next_version(store, number) == 1
    jobs.claim(store, jobs.owner())
    assert jobs.next_version(store, jobs.request(store, 1, "cycle", "")) == 2
    assert jobs.next_version(store, jobs.request(store, 2, "cycle", "")) == 1


def test_many_rings_are_one_wake_up(store: Store, tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    for _ in range(50):
        jobs.Bell(settings).ring(1)
    bell = jobs.Bell(settings)
    bell.ring(2)
    assert bell.rung() == {1, 2}
    assert bell.rung() == set()


def test_projects_are_untouched_by_the_lock(store: Store) -> None:
    jobs.request(store, 1, "cycle", "")
    with store.begin() as session:
        assert session.get_one(Project, 1).label_config == "<View/>"
