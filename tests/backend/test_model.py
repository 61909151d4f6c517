"""SecondLook as label-studio-ml's own server would use it."""

import pytest
from label_studio_ml.model import LabelStudioMLBase

from backend import jobs
from backend.model import SecondLook
from backend.settings import settings


@pytest.fixture
def model(world, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECOND_LOOK_STATE_DIR", str(world.settings.state_dir))
    monkeypatch.setenv("SECOND_LOOK_DATABASE_URL", world.store.engine.url.render_as_string())
    settings.cache_clear()
    yield SecondLook(label_config=None)
    settings.cache_clear()


def test_it_is_the_packages_base_class(model: SecondLook) -> None:
    assert isinstance(model, LabelStudioMLBase)


def test_predict_answers_each_task_and_abstains_on_what_is_none(model: SecondLook) -> None:
    task = {"id": 1, "project": 1, "data": {"image": "1.png", "bom": "benign"}}
    answers = model.predict([task, {"nonsense": True}, task])
    assert [answer["result"] != [] for answer in answers] == [True, False, True]
    assert answers[0]["model_version"] == "v1-live"
    assert model.predict([task | {"project": 77}]) == [{"result": [], "score": 0.0}]


def test_fit_only_wakes_the_worker(model: SecondLook, world) -> None:
    data = {"project": {"id": 1}}
    assert model.fit("ANNOTATION_CREATED", data) == {"status": "noted"}
    assert model.bell.rung() == {1}
    assert model.process_event("START_TRAINING", data, "job", {})["status"] == "queued"
    assert jobs.claim(world.store, jobs.owner()) is not None
    assert model.fit("PROJECT_CREATED", data) == {"status": "ignored"}
    assert model.fit("ANNOTATION_CREATED", {"project": {"id": 77}}) == {"status": "ignored"}
