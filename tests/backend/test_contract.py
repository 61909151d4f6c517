"""Every request that a real Label Studio 1.23.2 was recorded to send, answered by the real app on a real store."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from backend import jobs
from backend.app import create_app
from backend.settings import Settings
from tasks.project import basic_authorization
from tasks.store import Store
from tasks.tables import Job

RECORDED = Path(__file__).parents[2].parent / "shared" / "label-studio" / "requests.jsonl"

pytestmark = pytest.mark.skipif(not RECORDED.exists(), reason="../shared/label-studio is not there")


def recorded() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDED.read_text().splitlines()] if RECORDED.exists() else []


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, username="u", password="p", label_studio_url="http://127.0.0.1:9")


def send(client: FlaskClient, request: dict[str, Any], **headers: str) -> Any:
    body = None if request["json"] is None else json.dumps(request["json"])
    sent = {**request["headers"], **headers}
    return client.open(request["path"], method=request["method"], data=body, headers=sent)


def test_the_recording_holds_every_kind_of_request() -> None:
    paths = {(request["method"], request["path"]) for request in recorded()}
    assert paths == {
        ("GET", "/health"),
        ("POST", "/setup"),
        ("POST", "/predict"),
        ("POST", "/webhook"),
        ("GET", "/versions"),
    }
    assert base64.b64decode("dTpw") == b"u:p"


def test_replay_in_order(settings: Settings) -> None:
    client = create_app(settings).test_client()
    store = Store.open(settings.database)
    bell = jobs.Bell(settings)
    for number, request in enumerate(recorded()):
        response = send(client, request)
        if request["path"] == "/webhook" and "Authorization" not in request["headers"]:
            # Label Studio sends no basic auth with events: refused, until our header is on its webhook.
            assert response.status_code == 401, number
            assert response.headers["WWW-Authenticate"].startswith("Basic")
            response = send(client, request, Authorization=basic_authorization("u", "p"))
        assert response.status_code == 200, (number, response.get_json())
        answer = response.get_json()
        match request["path"]:
            case "/health":
                assert answer == {"status": "UP", "model_class": "SecondLook"}
            case "/setup":
                assert answer == {"model_version": "v0-live"}
                project = store.project(2)
                assert project is not None
                assert project.label_config == request["json"]["schema"]
                assert project.extra_params == request["json"]["extra_params"]
            case "/predict":
                assert len(answer["results"]) == len(request["json"]["tasks"]) == 1
                assert answer["results"][0]["result"] == []
                assert answer["results"][0]["model_version"] == "v0-live"
                assert isinstance(answer["results"][0]["score"], float)
            case "/webhook":
                assert bell.rung() == {2}, request["json"]["action"]
            case "/versions":
                assert answer == {"versions": []}
    with store.begin() as session:
        queued = session.query(Job).all()
    assert [(job.project_id, job.kind, job.state) for job in queued] == [(2, "cycle", "queued")]


def test_requests_in_any_order_and_repeated_do_no_harm(settings: Settings) -> None:
    client = create_app(settings).test_client()
    setup = next(request for request in recorded() if request["path"] == "/setup")
    header = {"Authorization": basic_authorization("u", "p")}
    for request in [*reversed(recorded())]:
        status = send(client, request, **header).status_code
        assert status == (404 if request["path"] in ("/webhook", "/predict") else 200)
        if request["path"] == "/setup":
            break
    assert send(client, setup).status_code == 200
    for request in [*reversed(recorded()), *recorded(), *recorded()]:
        assert send(client, request, **header).status_code == 200


def test_setup_token_is_kept_nowhere(settings: Settings) -> None:
    client = create_app(settings).test_client()
    for request in recorded():
        send(client, request, Authorization=basic_authorization("u", "p"))
    for path in settings.state_dir.rglob("*"):
        if path.is_file():
            assert b"example-access-token" not in path.read_bytes()
            assert b"example-invite-token" not in path.read_bytes()
