import time
from pathlib import Path

import pytest

from backend import jobs, schedule
from backend.settings import Settings
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Job, Project, Task, Version

CONFIG = """<View><Image name="image" value="$image"/><Choices name="bom" toName="image">
<Choice value="benign"/><Choice value="malignant"/></Choices></View>"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
    store.register_project(1, CONFIG)
    return store


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, retrain_after=10)


def add_task(store: Store) -> None:
    with store.begin() as session:
        session.add(Task(project_id=1, id=1, data={}, image="1.png", updated_at=""))


def add_version(store: Store, age: float, seconds: float, labels: int = 100) -> None:
    with store.begin() as session:
        fingerprint = parse_label_config(CONFIG).fingerprint()
        session.add(
            Version(
                project_id=1,
                number=1,
                created_at=time.time() - age,
                seconds=seconds,
                schema=fingerprint,
                labels=labels,
                metrics={},
            )
        )
        session.get_one(Project, 1).version = 1


def annotate(store: Store, count: int, **fields: object) -> None:
    with store.begin() as session:
        first = session.query(Annotation).count() + 1
        for number in range(first, first + count):
            values = {"origin": "person", "trained_in": None} | fields
            session.add(
                Annotation(
                    project_id=1,
                    id=number,
                    task_id=1,
                    created_at="",
                    updated_at="",
                    was_cancelled=False,
                    result=[],
                    labels={},
                    **values,
                )
            )


def test_the_first_model_waits_only_for_tasks(store: Store, settings: Settings) -> None:
    assert schedule.training_due(store, settings, 1) is None
    add_task(store)
    assert schedule.training_due(store, settings, 1) == "the first model"
    jobs.request(store, 1, "cycle", "the first model")
    assert schedule.training_due(store, settings, 1) is None


def test_enough_annotations_make_a_training_due(store: Store, settings: Settings) -> None:
    add_version(store, age=100, seconds=10)
    annotate(store, 9)
    assert schedule.training_due(store, settings, 1) is None
    annotate(store, 1)
    assert "10 new or changed" in (schedule.training_due(store, settings, 1) or "")


@pytest.mark.parametrize(
    "fields", [{"origin": "machine"}, {"origin": "empty"}, {"origin": "skipped"}, {"origin": "imported"}]
)
def test_what_no_person_labelled_does_not_count(store: Store, settings: Settings, fields: dict[str, object]) -> None:
    add_version(store, age=100, seconds=10)
    annotate(store, 20, **fields)
    assert schedule.training_due(store, settings, 1) is None


def test_what_was_learnt_or_deleted_does_not_count(store: Store, settings: Settings) -> None:
    add_version(store, age=100, seconds=10)
    annotate(store, 20, trained_in=1)
    annotate(store, 20, deleted_at=1.0)
    assert schedule.training_due(store, settings, 1) is None


def test_never_sooner_than_twice_the_last_training(store: Store, settings: Settings) -> None:
    add_version(store, age=100, seconds=51)
    annotate(store, 20)
    assert schedule.training_due(store, settings, 1) is None
    with store.begin() as session:
        session.get_one(Version, (1, 1)).seconds = 49
    assert schedule.training_due(store, settings, 1) is not None


@pytest.mark.parametrize(("labels", "needed"), [(100, 50), (10_000, 50), (20_000, 100), (120_000, 600)])
def test_by_default_the_larger_of_fifty_and_half_a_percent(store: Store, labels: int, needed: int) -> None:
    add_version(store, age=100, seconds=1, labels=labels)
    with store.begin() as session:
        assert schedule.threshold(session, Settings(), 1) == needed


def test_a_failed_training_is_not_repeated_at_once(store: Store, settings: Settings) -> None:
    add_version(store, age=100, seconds=1)
    annotate(store, 20)
    with store.begin() as session:
        job = Job(project_id=1, kind="cycle", state="failed", created_at=0.0, finished_at=time.time())
        session.add(job)
    assert schedule.training_due(store, settings, 1) is None
    with store.begin() as session:
        session.query(Job).one().finished_at = time.time() - schedule.AFTER_FAILURE - 1
    assert schedule.training_due(store, settings, 1) is not None


def test_a_changed_label_config_makes_a_training_due(store: Store, settings: Settings) -> None:
    add_version(store, age=100, seconds=1)
    store.register_project(1, CONFIG.replace('value="benign"', 'value="harmless"'))
    assert schedule.training_due(store, settings, 1) == "the label config has changed"


def add_job(store: Store, kind: str, state: str, started: float, finished: float | None) -> None:
    with store.begin() as session:
        job = Job(project_id=1, kind=kind, state=state, created_at=0.0, started_at=started, finished_at=finished)
        session.add(job)


def set_task(store: Store, **fields: object) -> None:
    with store.begin() as session:
        task = session.get_one(Task, (1, 1))
        for name, value in fields.items():
            setattr(task, name, value)


def test_tasks_that_nobody_looked_at_are_caught_up_with(store: Store) -> None:
    add_task(store)
    assert schedule.catch_up_due(store, 1) is None  # the first model's cycle reads them
    add_version(store, age=100, seconds=1)
    assert schedule.catch_up_due(store, 1) == "1 new or changed images"
    for done in ({"pixels": "digest"}, {"image_error": "no image"}, {"deleted_at": 1.0}):
        set_task(store, pixels=None, image_error=None, deleted_at=None)
        set_task(store, **done)
        assert schedule.catch_up_due(store, 1) is None


def test_an_order_made_elsewhere_catches_up_with_nothing(store: Store) -> None:
    add_task(store)
    add_version(store, age=100, seconds=1)
    with store.begin() as session:
        session.get_one(Project, 1).probabilities = "elsewhere.csv"
    assert schedule.catch_up_due(store, 1) is None


@pytest.mark.parametrize("kind", ["cycle", "catch-up"])
@pytest.mark.parametrize("state", ["queued", "running"])
def test_another_job_sees_to_it(store: Store, kind: str, state: str) -> None:
    add_task(store)
    add_version(store, age=100, seconds=1)
    add_job(store, kind, state, time.time(), None)
    assert schedule.catch_up_due(store, 1) is None


def test_images_that_come_one_at_a_time_leave_half_of_the_time(store: Store) -> None:
    add_task(store)
    add_version(store, age=100, seconds=1)
    add_job(store, "catch-up", "done", time.time() - 90, time.time() - 40)
    assert schedule.catch_up_due(store, 1) is None
    add_job(store, "catch-up", "done", time.time() - 70, time.time() - 40)
    assert schedule.catch_up_due(store, 1) is not None


def test_what_a_failed_training_has_read_is_caught_up_with_once(store: Store) -> None:
    add_task(store)
    set_task(store, pixels="digest")
    add_version(store, age=100, seconds=1)
    add_job(store, "cycle", "failed", time.time() - 50, time.time() - 40)
    assert schedule.catch_up_due(store, 1) == "what a failed job has read"
    add_job(store, "catch-up", "failed", time.time() - 50, time.time() - 40)
    assert schedule.catch_up_due(store, 1) is None
    add_job(store, "catch-up", "done", time.time() - 30, time.time() - 20)
    assert schedule.catch_up_due(store, 1) is None


def test_weights_alone_make_no_training_due(store: Store, settings: Settings) -> None:
    add_version(store, age=100, seconds=1)
    store.register_project(1, CONFIG.replace('name="bom"', 'name="bom" model_weight="3" required="true"'))
    assert schedule.training_due(store, settings, 1) is None
