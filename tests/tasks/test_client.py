import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from tasks import client as client_module
from tasks.client import Client, LabelStudioError

Make = Callable[..., Any]


@pytest.fixture
def own_client(label_studio: Any) -> Iterator[tuple[Client, list[str]]]:
    """A client without access token as yet, and the paths it asked for."""
    client, asked = Client(label_studio.url, label_studio.token), []
    client.http.event_hooks = {"request": [lambda request: asked.append(request.url.path)]}
    yield client, asked
    client.close()


def test_an_access_token_is_fetched_once_and_renewed_when_it_expires(
    own_client: tuple[Client, list[str]], scene: Make
) -> None:
    client, asked = own_client
    project = scene(1).project
    path, refresh = f"/api/projects/{project}/", "/api/token/refresh/"
    for _ in range(2):
        assert client.project(project)["id"] == project
    assert asked.count(refresh) == 1
    client.http.auth._access = "expired"  # type: ignore[union-attr]
    assert client.update_project(project, title="Renewed")["title"] == "Renewed"
    assert asked.count(refresh) == 2
    assert asked.count(path) >= 3


def test_a_token_that_is_not_accepted_is_named(label_studio: Any) -> None:
    with pytest.raises(LabelStudioError, match=r"SECOND_LOOK_LABEL_STUDIO_TOKEN\): 401 .*Create a new") as caught:
        Client(label_studio.url, "a.b.c").project(1)
    assert caught.value.status == 401
    with pytest.raises(LabelStudioError, match="GET /api/projects/1/: 401"):
        Client(label_studio.url, "0" * 40).project(1)


def test_a_refusal_names_the_call(client: Client) -> None:
    with pytest.raises(LabelStudioError, match="GET /api/projects/99999/: 404") as caught:
        client.project(99999)
    assert caught.value.status == 404


def test_pages_and_chosen_tasks(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE", 2)
    s = scene(5)
    ids = s.ids()
    s.submit(ids[0], s.choices(bom="benign"), s.annotator)
    s.client.import_predictions(
        s.project, [{"task": ids[4], "result": s.choices(bom="benign"), "score": 0.1, "model_version": "v1"}]
    )
    pages = list(s.client.tasks(s.project))
    assert [[row["id"] for row in page] for page in pages] == [ids[:2], ids[2:4], ids[4:]]
    assert [len(row["annotations"]) for page in pages for row in page] == [1, 0, 0, 0, 0]
    assert pages[0][0]["data"]["image"] == "/images/0.png"  # as it was imported

    chosen = list(s.client.tasks_by_id(s.project, [ids[4], ids[1], 10**9, ids[0]]))
    assert sorted(row["id"] for page in chosen for row in page) == [ids[0], ids[1], ids[4]]
    assert [row["predictions"][0]["score"] for page in chosen for row in page if row["id"] == ids[4]] == [0.1]
    assert list(s.client.tasks_by_id(s.project, [])) == []
    assert [page for page in s.client.tasks_by_id(s.project, [10**9]) if page] == []
    assert s.client.model_versions(s.project) == {"v1": 1}


def test_pages_that_vanish_while_they_are_read_are_the_end(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE", 2)
    s = scene(3)
    ids = s.ids()
    pages = s.client.tasks(s.project)
    assert len(next(pages)) == 2
    s.act("delete_tasks", ids[:2])
    assert list(pages) == []


def test_since_is_what_changed_after(scene: Make) -> None:
    s = scene(3)
    one, two, three = s.ids()
    s.submit(three, s.choices(bom="benign"))
    s.submit(one, s.choices(bom="benign"))
    times = {row["id"]: row["updated_at"] for page in s.client.tasks(s.project) for row in page}
    assert times[two] < times[three] < times[one] == s.client.newest_change(s.project)
    for since, expected in ((times[two], [one, three]), (times[three], [one]), (times[one], [])):
        assert [row["id"] for page in s.client.tasks(s.project, since) for row in page] == expected


def test_an_empty_project_has_no_newest_change(scene: Make) -> None:
    s = scene(0)
    assert s.client.newest_change(s.project) is None
    assert list(s.client.tasks(s.project)) == [[]]


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[int, str, str]], list[str]]]:
    """Something that is no Label Studio: its address, the answers it gives in turn, the calls it got."""
    answers: list[tuple[int, str, str]] = []
    calls: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            calls.append(f"{self.command} {self.path}")
            status, body, location = answers.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if location:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers, calls
    server.shutdown()
    thread.join()
    server.server_close()


def test_reads_are_repeated_and_writes_are_not(server: Any) -> None:
    url, answers, calls = server
    client = Client(url, "0" * 40)
    answers += [(503, "", ""), (502, "", ""), (200, json.dumps({"id": 1}), ""), (503, "", "")]
    assert client.project(1) == {"id": 1}
    with pytest.raises(httpx.HTTPStatusError):
        client.import_predictions(1, [])
    assert calls == ["GET /api/projects/1/"] * 3 + ["POST /api/projects/1/import/predictions"]


def test_a_proxy_without_its_server_says_nothing_about_the_token(server: Any) -> None:
    url, answers, _ = server
    answers += [(502, "", ""), (200, json.dumps({"access": "a"}), ""), (200, json.dumps({"id": 1}), "")]
    assert Client(url, "a.b.c").project(1) == {"id": 1}


def test_what_is_no_label_studio_is_said(server: Any) -> None:
    url, answers, _ = server
    client = Client(url, "0" * 40)
    answers += [(200, "<html>Welcome</html>", ""), (301, "", "https://elsewhere/api"), (404, "nothing here", "")]
    with pytest.raises(LabelStudioError, match="no JSON but '<html>Welcome"):
        client.project(1)
    with pytest.raises(LabelStudioError, match="301 redirects to https://elsewhere/api"):
        client.project(1)
    with pytest.raises(LabelStudioError, match="404 nothing here"):
        client.project(1)
    answers += [(200, "<html>Welcome</html>", "")]
    with pytest.raises(LabelStudioError, match="POST /api/token/refresh/: the answer is no JSON"):
        Client(url, "a.b.c").project(1)
