"""The HTTP contract: what is answered, what is refused and how it is said."""

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from backend import jobs, logs
from backend.app import create_app
from backend.registry import Registry, save_json
from backend.scored import Scored
from backend.settings import Settings
from backend.survivors import answers
from tasks.project import basic_authorization
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Base, Job, Project, Published, Task, Version

PASSWORD = "correct-horse-battery"
LABEL_CONFIG = """
<View><Image name="image" value="$image"/>
<Choices name="bom" toName="image" choice="single"><Choice value="benign"/><Choice value="malignant"/></Choices></View>
"""
ROUTES = [
    ("POST", "/setup"),
    ("POST", "/predict"),
    ("POST", "/webhook"),
    ("GET", "/versions"),
    ("GET", "/metrics"),
    ("GET", "/no-such-page"),
]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        state_dir=tmp_path,
        username="label-studio",
        password=PASSWORD,
        label_studio_url="http://127.0.0.1:9",
        max_body_mb=1,
    )


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store.open(settings.database)


@pytest.fixture
def app(settings: Settings) -> Flask:
    return create_app(settings)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return signed(app)


def signed(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = basic_authorization("label-studio", PASSWORD)
    return client


def setup_body(project: Any = "7.1795277263", schema: Any = LABEL_CONFIG, extra_params: Any = None) -> dict[str, Any]:
    return {
        "project": project,
        "schema": schema,
        "hostname": "http://localhost:8080",
        "access_token": "access-token-of-the-project",
        "extra_params": extra_params,
    }


@pytest.fixture
def connected(client: FlaskClient) -> FlaskClient:
    assert client.post("/setup", json=setup_body()).status_code == 200
    return client


def refusal(response: Any) -> str:
    assert response.mimetype == "application/json"
    message = response.get_json()["error"]
    assert isinstance(message, str)
    return message


def model(store: Store, settings: Settings, number: int, malignant: dict[int, float]) -> None:
    """Put version `number` where a cycle leaves it, with these probabilities per task."""
    folder = Registry(settings.state_dir).version(7, number)
    p = np.array(list(malignant.values()), dtype=np.float32)
    Scored(
        ids=np.array(list(malignant), dtype=np.int64),
        probabilities={"bom": np.stack([1 - p, p], axis=1)},
        scores=None,
        pixels=np.array([f"digest{task}" for task in malignant]),
        answers=answers(parse_label_config(LABEL_CONFIG).heads),
    ).save(folder / "predictions.npz")
    save_json(folder / "model.json", {"heads": []})
    with store.begin() as session:
        session.add(
            Version(
                project_id=7,
                number=number,
                created_at=0.0,
                seconds=1.0,
                schema=parse_label_config(LABEL_CONFIG).fingerprint(),
                labels=0,
                metrics={},
            )
        )
        session.get_one(Project, 7).version = number


# --- who may ask


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_everything_but_health_wants_basic_auth(app: Flask, method: str, path: str) -> None:
    for header in ({}, {"Authorization": basic_authorization("label-studio", "wrong")}, {"Authorization": "Basic ?"}):
        response = app.test_client().open(path, method=method, headers=header)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Basic")
        assert "SECOND_LOOK_PASSWORD" in refusal(response)


def test_health_needs_neither_auth_nor_database(app: Flask, store: Store) -> None:
    Base.metadata.drop_all(store.engine)
    response = app.test_client().get("/health")
    assert (response.status_code, response.get_json()) == (200, {"status": "UP", "model_class": "SecondLook"})


def test_without_a_password_only_this_machine_is_served(tmp_path: Path) -> None:
    client = create_app(Settings(state_dir=tmp_path, password="")).test_client()
    assert client.get("/versions").status_code == 200
    response = client.get("/versions", environ_base={"REMOTE_ADDR": "172.17.0.1"})
    assert response.status_code == 403
    assert "SECOND_LOOK_PASSWORD" in refusal(response)


# --- /setup


def test_setup_registers_and_refreshes(client: FlaskClient, store: Store) -> None:
    for project, extra_params in (("7.1795277263", {"batch_size": 20}), (7, None), ("7", '{"batch_size": 30}')):
        response = client.post("/setup", json=setup_body(project, extra_params=extra_params))
        assert response.get_json() == {"model_version": "v0-live"}
    stored = store.project(7)
    assert stored is not None
    assert stored.extra_params == {"batch_size": 30}
    changed = LABEL_CONFIG.replace("benign", "harmless")
    client.post("/setup", json=setup_body(schema=changed))
    assert (refreshed := store.project(7)) is not None
    assert refreshed.label_config == changed


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "not valid JSON"),
        (b"{", 400, "not valid JSON"),
        (b"\xff\xfe", 400, "not valid JSON"),
        (b"[" * 100_000, 400, "not valid JSON"),
        (b"[]", 400, "JSON object"),
        (b"null", 400, "JSON object"),
        (b"{}", 400, "'schema'"),
        (setup_body(schema=5), 400, "'schema'"),
        (setup_body(schema=""), 400, "'schema'"),
        (setup_body(schema="<View>\ud800</View>"), 400, "Unicode"),
        (setup_body(project=None), 400, "'project'"),
        (setup_body(project="x.y"), 400, "'project'"),
        (setup_body(project="²"), 400, "'project'"),
        (setup_body(project=True), 400, "'project'"),
        (setup_body(project=10**30), 400, "'project'"),
        (setup_body(project=-1), 400, "'project'"),
        (setup_body(extra_params=[1]), 400, "'extra_params'"),
        (setup_body(extra_params="{"), 400, "'extra_params'"),
        (setup_body(schema="<View"), 422, "label config"),
        (setup_body(schema="<View/>"), 422, "label config"),
        (setup_body(schema='<View><Image name="i" value="$i"/></View>'), 422, "label config"),
        (
            setup_body(schema='<!DOCTYPE v [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><View>&b;</View>'),
            422,
            "label config",
        ),
    ],
)
def test_setup_refuses_with_a_reason(
    client: FlaskClient, store: Store, body: bytes | dict[str, Any], status: int, says: str
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post("/setup", data=raw)
    assert response.status_code == status
    assert says in refusal(response)
    assert "access-token" not in response.get_data(as_text=True)
    assert store.project(7) is None


# --- /predict


def test_before_the_first_model_every_task_abstains(connected: FlaskClient) -> None:
    tasks = [{"id": number, "data": {"image": "/data/upload/a.png"}} for number in (3, 1, 2)]
    response = connected.post(
        "/predict", json={"tasks": tasks, "project": "7.1795277263", "label_config": LABEL_CONFIG}
    )
    assert response.get_json() == {"results": [{"result": [], "score": 0.0, "model_version": "v0-live"}] * 3}


def test_one_entry_a_task_in_the_order_asked_whatever_is_malformed(
    connected: FlaskClient, store: Store, settings: Settings
) -> None:
    chances = {number: number / 1000 for number in range(1, 1001)}
    model(store, settings, 1, chances)
    order = [int(number) for number in np.random.default_rng(0).permutation(1000) + 1]
    tasks: list[Any] = [{"id": number, "data": {"image": "/x.png"}} for number in order]
    malformed = [None, 5, "x", [], {}, {"id": "1", "data": {}}, {"data": {}}, {"id": 1}, {"id": 1, "data": None}]
    malformed += [{"id": True, "data": {}}, {"id": 10**30, "data": {}}, {"id": 1.0, "data": {}}]
    for place, bad in enumerate(malformed):
        tasks.insert(7 * place, bad)
    results = connected.post("/predict", json={"tasks": tasks, "project": "7.1795277263"}).get_json()["results"]
    assert len(results) == len(tasks)
    for task, entry in zip(tasks, results, strict=True):
        assert entry["model_version"] == "v1-live"
        assert isinstance(entry["score"], float)
        if task in malformed:
            assert entry["result"] == []
        else:
            (region,) = [region for region in entry["result"] if region["from_name"] == "bom"]
            likely = "malignant" if chances[task["id"]] > 0.5 else "benign"
            assert region["value"]["choices"] == [likely]
            assert region["score"] == pytest.approx(max(chances[task["id"]], 1 - chances[task["id"]]), abs=1e-4)


def test_a_new_version_reaches_every_process_with_the_next_request(
    connected: FlaskClient, store: Store, settings: Settings
) -> None:
    other = signed(create_app(settings))
    body = {"tasks": [{"id": 1, "data": {"image": "/x.png"}}], "project": "7"}
    for number, malignant in ((1, 0.9), (2, 0.1)):
        model(store, settings, number, {1: malignant})
        for process in (connected, other):
            (entry,) = process.post("/predict", json=body).get_json()["results"]
            assert entry["model_version"] == f"v{number}-live"
            assert entry["result"][0]["value"]["choices"] == ["malignant" if malignant > 0.5 else "benign"]
            assert process.post("/setup", json=setup_body()).get_json() == {"model_version": f"v{number}-live"}
    assert connected.get("/versions").get_json() == {"versions": ["v1-live", "v2-live"]}


@pytest.mark.parametrize("tasks", [None, {}, "x", 5])
def test_predict_wants_a_list(connected: FlaskClient, tasks: Any) -> None:
    response = connected.post("/predict", json={"tasks": tasks, "project": "7.1795277263"})
    assert response.status_code == 400
    assert "'tasks'" in refusal(response)


def test_no_tasks_no_entries(connected: FlaskClient) -> None:
    assert connected.post("/predict", json={"tasks": [], "project": "7.1795277263"}).get_json() == {"results": []}


def test_unknown_project_says_how_to_connect_it(connected: FlaskClient) -> None:
    for path, body in (
        ("/predict", {"tasks": [], "project": "8.1"}),
        ("/webhook", {"action": "ANNOTATION_CREATED", "project": {"id": 8}}),
        ("/webhook", {"action": "START_TRAINING", "project": {"id": 8}}),
    ):
        response = connected.post(path, json=body)
        assert response.status_code == 404
        assert "project 8" in refusal(response)


# --- /webhook


def test_events_ring_the_bell_and_write_nothing(connected: FlaskClient, settings: Settings, store: Store) -> None:
    bell = jobs.Bell(settings)
    for action in ("ANNOTATION_CREATED", "ANNOTATIONS_DELETED", "TASKS_CREATED", "PROJECT_UPDATED"):
        response = connected.post("/webhook", json={"action": action, "project": {"id": 7}})
        assert (response.status_code, response.get_json()) == (200, {"status": "noted"})
        assert bell.rung() == {7}
    with store.begin() as session:
        assert session.query(Job).count() == 0


def test_start_training_queues_one_cycle(connected: FlaskClient, settings: Settings, store: Store) -> None:
    for _ in range(3):
        response = connected.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 7}})
        assert response.status_code == 200
    assert jobs.Bell(settings).rung() == {7}
    with store.begin() as session:
        assert [(job.kind, job.state) for job in session.query(Job)] == [("cycle", "queued")]


def test_an_annotator_does_not_wait_for_a_writing_worker(
    connected: FlaskClient, settings: Settings, store: Store
) -> None:
    """While the worker holds SQLite's write lock, events, unchanged setups and predictions are answered."""
    with store.begin() as session:
        session.get_one(Project, 7).title = "being written"
        session.flush()
        for path, body in (
            ("/webhook", {"action": "ANNOTATION_CREATED", "project": {"id": 7}}),
            ("/setup", setup_body()),
            ("/predict", {"tasks": [{"id": 1, "data": {}}], "project": "7"}),
        ):
            assert connected.post(path, json=body).status_code == 200


def test_unknown_actions_are_ignored(connected: FlaskClient) -> None:
    for body in ({"action": "LABEL_LINK_CREATED"}, {"action": "X", "project": {"id": 99}}):
        response = connected.post("/webhook", json=body)
        assert (response.status_code, response.get_json()) == (200, {"status": "ignored"})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "'action'"),
        ({"action": 5}, "'action'"),
        ({"action": "ANNOTATION_CREATED"}, "'project'"),
        ({"action": "ANNOTATION_CREATED", "project": {"id": "x"}}, "'project'"),
        ({"action": "ANNOTATION_CREATED", "project": []}, "'project'"),
    ],
)
def test_malformed_events_are_refused(connected: FlaskClient, body: dict[str, Any], says: str) -> None:
    response = connected.post("/webhook", json=body)
    assert response.status_code == 400
    assert says in refusal(response)


# --- errors


@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook"])
def test_too_large_bodies_get_413(client: FlaskClient, path: str) -> None:
    announced = client.post(path, data=b" " * (2**20 + 1))
    chunked = client.post(
        path,
        input_stream=io.BytesIO(b" " * (2**20 + 1)),
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    for response in (announced, chunked):
        assert response.status_code == 413
        assert "1 MB (SECOND_LOOK_MAX_BODY_MB)" in refusal(response)


def test_wrong_method_and_unknown_path_are_json(client: FlaskClient) -> None:
    response = client.get("/predict")
    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]
    assert refusal(response)
    response = client.get("/no-such-page")
    assert response.status_code == 404
    assert refusal(response)


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What the real log configuration writes."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    logs.configure("json", secrets=[PASSWORD])
    written = io.StringIO()
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    yield written
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising


def test_no_secret_reaches_the_log_or_an_error(app: Flask, store: Store, logged: io.StringIO) -> None:
    client = signed(app)
    client.post("/setup", json=setup_body())
    client.post("/setup", data=json.dumps(setup_body())[:-1])
    client.post("/setup", json=setup_body(schema="<View/>"))
    client.post("/setup", json=setup_body(extra_params="access-token-of-the-project"))
    client.get("/versions", headers={"Authorization": basic_authorization("label-studio", f"{PASSWORD}x")})
    Base.metadata.drop_all(store.engine)
    failed = client.post("/setup", json=setup_body())
    assert failed.status_code == 500
    assert "internal error" in refusal(failed)
    text = logged.getvalue()
    for secret in ("access-token-of-the-project", PASSWORD, basic_authorization("label-studio", PASSWORD)[6:]):
        assert secret not in text
        assert secret not in failed.get_data(as_text=True)
    lines = [json.loads(line) for line in text.splitlines()]
    (error,) = [line for line in lines if line["event"] == "request failed"]
    assert "OperationalError" in error["exception"]
    assert error["request"] == failed.get_json()["request"] == failed.headers["X-Request-Id"]
    assert [line["status"] for line in lines if line["event"] == "answered"] == [200, 400, 422, 400, 401, 500]


# --- threads


def test_threads_share_the_app(app: Flask, settings: Settings, store: Store) -> None:
    barrier = threading.Barrier(8)

    def use(worker: int) -> None:
        client = signed(app)
        barrier.wait()
        for turn in range(5):
            assert client.post("/setup", json=setup_body()).status_code == 200
            tasks = [{"id": number + 1, "data": {}} for number in range(worker + turn)]
            answer = client.post("/predict", json={"tasks": tasks, "project": "7"}).get_json()
            assert len(answer["results"]) == len(tasks)
            event = {"action": "START_TRAINING" if turn == 2 else "ANNOTATION_CREATED", "project": {"id": 7}}
            assert client.post("/webhook", json=event).status_code == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    assert jobs.Bell(settings).rung() == {7}
    with store.begin() as session:
        assert [job.kind for job in session.query(Job)] == ["cycle"]


# --- /metrics


def metrics(client: FlaskClient) -> dict[str, float]:
    """Samples by name and labels, as they are written."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.mimetype == "text/plain"
    families = text_string_to_metric_families(response.get_data(as_text=True))
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_tell_what_the_store_holds(connected: FlaskClient, store: Store, settings: Settings) -> None:
    with store.begin() as session:
        for number in range(1, 6):
            session.add(
                Task(
                    project_id=7,
                    id=number,
                    data={},
                    image="",
                    updated_at="",
                    is_labeled=number == 1,
                    image_error="gone" if number == 5 else None,
                )
            )
        for number, origin in enumerate(["person", "person", "machine"], start=1):
            session.add(
                Annotation(
                    project_id=7,
                    id=number,
                    task_id=1,
                    created_at="",
                    updated_at="",
                    was_cancelled=False,
                    result=[],
                    labels={},
                    origin=origin,
                )
            )
    model(store, settings, 3, {1: 0.5})
    with store.begin() as session:
        session.get_one(Project, 7).published = 3
        for number in (1, 2, 3):
            session.add(
                Published(project_id=7, version=3, task_id=number, rank=number, kind="ranked", why="", shown=[], at=0.0)
            )
    jobs.request(store, 7, "cycle", "a test")
    found = metrics(connected)
    assert found["second_look_tasks project=7"] == 5
    assert found["second_look_images_failed project=7"] == 1
    assert found["second_look_annotations origin=person project=7"] == 2
    assert found["second_look_annotations origin=machine project=7"] == 1
    assert found["second_look_labels_until_training project=7"] == 48
    assert found["second_look_model_version project=7"] == 3
    assert found["second_look_published_version project=7"] == 3
    assert found["second_look_queue_remaining project=7"] == 2
    assert found["second_look_alarms project=7"] == 0
    assert found["second_look_jobs kind=cycle project=7 state=queued"] == 1
    assert found["second_look_workers"] == 0
    assert found["second_look_requests_total endpoint=setup status=200"] == 1
    assert found["second_look_request_seconds_count endpoint=setup"] == 1


def test_metrics_count_requests_of_all_processes(tmp_path: Path) -> None:
    """In a process of its own, since prometheus-client decides when it is imported, and a fork of that."""
    program = """
import os, sys
from backend.app import create_app
from backend.settings import Settings
settings = Settings(state_dir=sys.argv[1], password="")
child = os.fork()
client = create_app(settings).test_client()
client.get("/versions")
if child:
    os.waitpid(child, 0)
    print(client.get("/metrics").get_data(as_text=True))
    print("torch:", "torch" in sys.modules)
"""
    folder = tmp_path / "metrics"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "state")],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'second_look_requests_total{endpoint="versions",status="200"} 2.0' in done.stdout
    assert "second_look_workers 0.0" in done.stdout
    assert "torch: False" in done.stdout  # which takes seconds to import: learning is the worker's
