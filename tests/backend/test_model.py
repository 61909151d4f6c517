"""SecondLook under label-studio-ml's own server of 1.0.9, and called as 2.x's server calls a model."""

import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from label_studio_ml.api import init_app
from label_studio_ml.model import LabelStudioMLBase, LabelStudioMLManager
from sqlalchemy import select

from backend import jobs, model
from backend.model import SecondLook
from backend.payloads import BadPayload
from backend.settings import settings
from tasks.identity import OtherLabelStudio
from tasks.schema import SchemaError
from tasks.tables import Job

RECORDED = Path(__file__).parents[2].parent / "shared" / "label-studio" / "requests.jsonl"
TASK = {"id": 1, "project": 1, "data": {"image": "1.png", "bom": "benign"}}
TWO_CLASSES = """<View><Image name="i" value="$image"/>
<Choices name="c" toName="i"><Choice value="cat"/><Choice value="dog"/></Choices></View>"""


@pytest.fixture(autouse=True)
def environment(world: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SECOND_LOOK_STATE_DIR", str(world.settings.state_dir))
    monkeypatch.setenv("SECOND_LOOK_DATABASE_URL", world.store.engine.url.render_as_string())
    settings.cache_clear()
    model.parts.cache_clear()
    yield
    settings.cache_clear()
    model.parts.cache_clear()


def queued(world: Any) -> list[int]:
    with world.store.begin() as session:
        return list(session.scalars(select(Job.project_id).where(Job.kind == "cycle", Job.state == "queued")))


@pytest.fixture
def server(tmp_path: Path) -> FlaskClient:
    """label-studio-ml 1.0.9 with our model."""
    return init_app(model_class=SecondLook, model_dir=str(tmp_path / "ml")).test_client()


def setup_body(project: int, config: str) -> dict[str, Any]:
    return {"project": f"{project}.1795277263", "schema": config, "hostname": "", "extra_params": None}


def predict_body(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    params = {"login": None, "password": None, "context": None}
    return {"tasks": tasks, "project": "1.1795277263", "label_config": TWO_CLASSES, "params": params}


def test_1_0_9_answers_from_the_version_that_the_worker_left(server: FlaskClient, world: Any) -> None:
    assert server.get("/health").get_json()["status"] == "UP"
    config = world.store.project(1).label_config
    assert server.post("/setup", json=setup_body(1, config)).status_code == 200
    answer = server.post("/predict", json=predict_body([TASK, {"nonsense": True}, TASK | {"id": 2}])).get_json()
    assert [row["result"] != [] for row in answer["results"]] == [True, False, True]
    assert {row["model_version"] for row in answer["results"]} == {"v1-live"}
    unknown = server.post("/predict", json=predict_body([TASK | {"project": 77}])).get_json()
    assert unknown["results"] == [{"result": [], "score": 0.0, "model_version": "v0-live"}]


def test_1_0_9_makes_a_process_for_each_event_which_only_queues(server: FlaskClient, world: Any) -> None:
    project = {"id": 1, "label_config": world.store.project(1).label_config}
    assert server.post("/webhook", json={"action": "START_TRAINING", "project": project}).status_code == 201
    for process in multiprocessing.active_children():
        process.join(60)
    assert queued(world) == [1]
    # From here on 1.0.9 makes the model anew with what `fit` returned.
    assert server.post("/setup", json=setup_body(1, project["label_config"])).status_code == 200
    answer = server.post("/predict", json=predict_body([TASK])).get_json()["results"]
    assert answer[0]["result"] and answer[0]["model_version"] == "v1-live"


@pytest.mark.skipif(not RECORDED.exists(), reason="../shared/label-studio is not there")
def test_1_0_9_hears_what_a_real_label_studio_was_recorded_to_send(server: FlaskClient, world: Any) -> None:
    bell = model.parts()[2]
    for line in RECORDED.read_text().splitlines():
        request = json.loads(line)
        body, path = request["json"], request["path"]
        if path == "/webhook":
            event = body.pop("action")
            # What the server's process runs; the test above has seen a real one.
            LabelStudioMLManager.get_job_manager().job(SecondLook, event, body, "1")
            assert bell.rung() == {2}, event
        elif path == "/versions":
            continue  # a POST there, to which Label Studio sends a GET
        else:
            response = server.open(path, method=request["method"], json=body)
            assert response.status_code == 200, response.get_json()
        if path == "/predict":
            assert [row["result"] for row in response.get_json()["results"]] == [[]]
    assert queued(world) == [2]
    assert world.store.project(2).label_config.startswith("<View>")


# label-studio-ml 2.x: what its api.py does with a model class, in the same words.


def setup_2x(data: dict[str, Any]) -> Any:
    asked = SecondLook(project_id=data["project"].split(".", 1)[0], label_config=data["schema"])
    if data["extra_params"]:
        asked.set_extra_params(data["extra_params"])
    return asked.get("model_version")


def predict_2x(data: dict[str, Any]) -> Any:
    params = dict(data["params"])
    context = params.pop("context", {})
    asked = SecondLook(project_id=str(data["project"]).split(".", 1)[0], label_config=data["label_config"])
    return asked.predict(data["tasks"], context=context, **params)


def webhook_2x(event: str, data: dict[str, Any]) -> Any:
    asked = SecondLook(str(data["project"]["id"]), label_config=data["project"]["label_config"])
    return asked.fit(event, data)


def test_2_x_registers_a_project_at_setup_with_its_parameters(world: Any) -> None:
    assert setup_2x(setup_body(5, TWO_CLASSES)) == "v0-live"
    assert world.store.project(5).label_config == TWO_CLASSES
    assert setup_2x(setup_body(5, TWO_CLASSES) | {"extra_params": '{"batch_size": 7}'}) == "v0-live"
    assert world.store.project(5).extra_params == {"batch_size": 7}
    with pytest.raises(BadPayload, match="batch_size"):
        setup_2x(setup_body(5, TWO_CLASSES) | {"extra_params": {"batch_size": 0}})
    with pytest.raises(SchemaError):
        setup_2x(setup_body(6, "<View/>"))
    assert world.store.project(6) is None
    assert setup_2x(setup_body(1, world.store.project(1).label_config)) == "v1-live"


def test_2_x_predicts_and_fits(world: Any) -> None:
    config = world.store.project(1).label_config
    body = predict_body([TASK, {"nonsense": True}]) | {"label_config": config}
    answers = predict_2x(body)
    assert [answer["result"] != [] for answer in answers] == [True, False]
    assert {answer["model_version"] for answer in answers} == {"v1-live"}
    assert predict_2x(body | {"project": "5.1"})[0]["model_version"] == "v0-live"
    project = {"id": 1, "label_config": config}
    assert webhook_2x("ANNOTATION_CREATED", {"project": project}) == {"status": "noted"}
    assert webhook_2x("START_TRAINING", {"project": project})["status"] == "queued"
    assert queued(world) == [1]
    assert webhook_2x("PROJECT_CREATED", {"project": project}) == {"status": "ignored"}


def test_a_model_by_itself(world: Any) -> None:
    assert issubclass(SecondLook, LabelStudioMLBase)
    alone = SecondLook(project_id="1.1795277263")
    assert alone.model_version == "v1-live" and alone.predict([TASK])[0]["result"]
    assert alone.fit("ANNOTATION_CREATED", {"project": 77}) == {"status": "ignored"}
    assert alone.fit("ANNOTATION_CREATED", {}) == {"status": "ignored"}
    assert SecondLook(project_id="").predict([TASK])[0]["result"]  # the number is the task's
    assert jobs.claim(world.store, jobs.owner()) is None


def test_a_project_of_another_label_studio_is_refused(world: Any) -> None:
    config = world.store.project(1).label_config
    project = {"id": 5, "label_config": config, "created_at": "2026-11-21T16:20:30.809623Z"}
    assert webhook_2x("START_TRAINING", {"project": project})["status"] == "queued"
    with pytest.raises(OtherLabelStudio):
        webhook_2x("START_TRAINING", {"project": project | {"created_at": "2025-01-01T00:00:00Z"}})
    with pytest.raises(OtherLabelStudio):
        SecondLook("5.1500000000", config)


def test_models_share_the_parts_of_their_process() -> None:
    assert SecondLook("1").live is SecondLook("1").live
