"""Image fetching against real HTTP servers on this machine and a real Label Studio; the cache on a real disk."""

import base64
import gzip
import logging
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import stamina
from moto.server import ThreadedMotoServer

from demo import labelstudio
from tasks.addresses import AddressPolicy
from tasks.client import Client, LabelStudioError
from tasks.images import ImageCache, Images, ImageUnavailable, shown_url

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
TOKEN = "Bearer a-secret-token"
PROJECT = 7
HERE = AddressPolicy.parse("*", "127.0.0.1/32")


@dataclass
class Server:
    """A server whose answers are functions by path; it notes every request's path and Authorization."""

    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def count(self) -> Counter[str]:
        return Counter(path for path, _ in self.seen)


def answer(
    status: int = 200, body: bytes = PNG, kind: str = "image/png", **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        headers.setdefault("Content_Length", str(len(body)))
        for name, value in headers.items():
            if value:
                handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return write


def redirect(target: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return answer(302, b"", Location=target)


def started() -> tuple[Server, ThreadingHTTPServer]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.seen.append((self.path, self.headers.get("Authorization")))
            server.answers.get(self.path, answer(404, b"nothing here", "text/plain"))(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    return server, http


@pytest.fixture
def host() -> Iterator[Server]:
    server, http = started()
    yield server
    http.shutdown()
    http.server_close()


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    server, http = started()
    yield server
    http.shutdown()
    http.server_close()


@pytest.fixture(autouse=True)
def quick_retries() -> Iterator[None]:
    """The real number of attempts, without the waiting between them."""
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path / "images", 10**6)


@pytest.fixture
def images(host: Server, cache: ImageCache) -> Iterator[Images]:
    yield from opened(host.url, cache)


def opened(base_url: str, cache: ImageCache) -> Generator[Images, None, None]:
    with httpx.Client(headers={"Authorization": TOKEN}) as http:
        fetcher = Images(base_url, http, cache, 1000, HERE)
        yield fetcher
        fetcher.close()


def reason(images: Images, url: str, project_id: int = PROJECT) -> str:
    with pytest.raises(ImageUnavailable) as caught:
        images.fetch(url, project_id)
    return str(caught.value)


# --- which addresses, and who gets the token


@pytest.mark.parametrize(
    "path",
    [
        "/data/upload/1/a.png",
        "/data/local-files/?d=study/a%20b.png",
        "/storage-data/uploaded/?filepath=upload/1/a.png",
    ],
)
def test_site_relative_addresses_go_to_host_with_the_token(images: Images, host: Server, path: str) -> None:
    host.answers[path] = answer()
    assert images.fetch(path, PROJECT) == PNG
    assert host.seen == [(path, TOKEN)]


def test_blanks_in_a_local_file_name_are_encoded(images: Images, host: Server) -> None:
    host.answers["/data/local-files/?d=study/a%20b.png"] = answer()
    assert images.fetch("/data/local-files/?d=study/a b.png", PROJECT) == PNG


def test_absolute_address_of_host_gets_the_token(images: Images, host: Server) -> None:
    host.answers["/data/upload/a.png"] = answer()
    assert images.fetch(f"{host.url}/data/upload/a.png", PROJECT) == PNG
    assert host.seen == [("/data/upload/a.png", TOKEN)]


@pytest.mark.parametrize("base", ["", "/labels"])
@pytest.mark.parametrize("public", ["https://studio.example.org", "https://studio.example.org/annotate/"])
def test_the_public_address_of_host_is_asked_for_where_we_reach_it(
    host: Server, cache: ImageCache, base: str, public: str
) -> None:
    path = "/data/local-files/?d=study/a%20b.png"
    host.answers[base + path] = answer()
    host.answers[f"{base}/data/upload/b.png"] = redirect(f"{public.rstrip('/')}{path}")
    with httpx.Client(headers={"Authorization": TOKEN}) as http:
        images = Images(f"{host.url}{base}", http, cache, 1000, AddressPolicy.parse("none.example.org", ""), "", public)
        assert images.fetch(f"{public.rstrip('/')}{path}", PROJECT) == PNG
        assert images.fetch("/data/upload/b.png", PROJECT) == PNG
        for foreign in ("https://studio.example.org.evil.org/a.png", "https://studio.example.org:444/annotate/a.png"):
            assert "SECOND_LOOK_IMAGE_HOSTS" in reason(images, foreign)
        images.close()
    assert host.seen == [(f"{base}{path}", TOKEN), (f"{base}/data/upload/b.png", TOKEN), (f"{base}{path}", TOKEN)]


def test_another_host_never_sees_the_token(images: Images, elsewhere: Server, host: Server) -> None:
    elsewhere.answers["/a.png?sig=1"] = answer()
    assert images.fetch(f"{elsewhere.url}/a.png?sig=1", PROJECT) == PNG
    assert elsewhere.seen == [("/a.png?sig=1", None)]
    assert host.seen == []


def test_an_address_that_only_looks_like_host_never_sees_the_token(
    images: Images, elsewhere: Server, host: Server
) -> None:
    authority = host.url.removeprefix("http://")
    other = elsewhere.url.removeprefix("http://")
    elsewhere.answers["/a.png"] = answer()
    assert images.fetch(f"http://{authority}@{other}/a.png", PROJECT) == PNG
    assert [authorization for _, authorization in elsewhere.seen] != [TOKEN]
    assert host.seen == []


def test_a_redirect_to_storage_leaves_the_token_behind(images: Images, host: Server, elsewhere: Server) -> None:
    host.answers["/tasks/1/resolve/?fileuri=czM"] = redirect(f"{elsewhere.url}/bucket/a.png?X-Sig=1")
    elsewhere.answers["/bucket/a.png?X-Sig=1"] = answer()
    assert images.fetch("/tasks/1/resolve/?fileuri=czM", PROJECT) == PNG
    assert host.seen == [("/tasks/1/resolve/?fileuri=czM", TOKEN)]
    assert elsewhere.seen == [("/bucket/a.png?X-Sig=1", None)]


def test_redirects_end(images: Images, host: Server) -> None:
    host.answers["/loop.png"] = redirect("/loop.png")
    assert "redirects more than 5 times" in reason(images, "/loop.png")
    assert host.count() == {"/loop.png": 6}


def test_a_redirect_to_a_file_is_refused(images: Images, host: Server) -> None:
    host.answers["/a.png"] = redirect("file:///etc/passwd")
    assert "cannot be fetched" in reason(images, "/a.png")


def test_a_redirect_to_where_the_admin_does_not_allow_is_refused(
    host: Server, elsewhere: Server, cache: ImageCache
) -> None:
    port = elsewhere.url.rpartition(":")[2]
    host.answers["/data/upload/a.png"] = redirect(f"http://localhost:{port}/a.png")
    elsewhere.answers["/a.png"] = answer()
    with httpx.Client(headers={"Authorization": TOKEN}) as http:
        images = Images(host.url, http, cache, 1000, AddressPolicy.parse("*", ""))
        assert "not a public address" in reason(images, "/data/upload/a.png")
        assert "not a public address" in reason(images, f"{elsewhere.url}/a.png")
        assert host.count() == {"/data/upload/a.png": 1}, "what is refused was tried again"
        images.close()
        images = Images(host.url, http, cache, 1000, AddressPolicy.parse("127.0.0.1", "127.0.0.0/8"))
        assert "SECOND_LOOK_IMAGE_HOSTS" in reason(images, "/data/upload/a.png")
        assert elsewhere.seen == []
        assert images.fetch(f"{elsewhere.url}/a.png", PROJECT) == PNG
        images.close()


def test_objects_of_storages_are_asked_of_label_studio(images: Images, host: Server, elsewhere: Server) -> None:
    for scheme in ("s3", "gs", "azure-blob"):
        uri = f"{scheme}://scans/a b+ä/?.png"
        encoded = base64.urlsafe_b64encode(uri.encode()).decode()
        host.answers[f"/projects/7/resolve/?fileuri={encoded}"] = redirect(f"{elsewhere.url}/{scheme}?X-Signature=1")
        elsewhere.answers[f"/{scheme}?X-Signature=1"] = answer(body=scheme.encode())
        for _ in range(2):  # the second time from the cache, though every signature differs
            assert images.fetch(uri, 7) == scheme.encode()
        assert "finds no storage" in reason(images, uri.replace("scans", "other"))
    assert [token for _, token in host.seen] == [TOKEN] * 6
    assert [token for _, token in elsewhere.seen] == [None] * 3


def test_one_name_in_two_projects_may_be_two_objects(images: Images, host: Server) -> None:
    encoded = base64.urlsafe_b64encode(b"s3://scans/a.png").decode()
    for project in (1, 2):
        host.answers[f"/projects/{project}/resolve/?fileuri={encoded}"] = answer(body=bytes([project]))
    assert [images.fetch("s3://scans/a.png", project) for project in (1, 2, 1)] == [b"\1", b"\2", b"\1"]


def test_sub_path_is_added_once_and_bounds_the_token(host: Server, cache: ImageCache) -> None:
    host.answers["/ls/data/upload/a.png"] = answer()
    host.answers["/ls/data/upload/b.png"] = answer()
    host.answers["/other-app/c.png"] = answer()
    fetcher = opened(f"{host.url}/ls/", cache)
    images = next(fetcher)
    assert images.fetch("/data/upload/a.png", PROJECT) == PNG
    assert images.fetch("/ls/data/upload/b.png", PROJECT) == PNG
    assert images.fetch(f"{host.url}/other-app/c.png", PROJECT) == PNG
    assert host.seen == [
        ("/ls/data/upload/a.png", TOKEN),
        ("/ls/data/upload/b.png", TOKEN),
        ("/other-app/c.png", None),
    ]
    fetcher.close()


def test_data_urls_are_decoded(images: Images) -> None:
    encoded = base64.b64encode(PNG).decode()
    assert images.fetch(f"data:image/png;base64,{encoded}", PROJECT) == PNG
    assert "only data:image" in reason(images, f"data:text/html;base64,{encoded}")
    assert "base64 is broken" in reason(images, "data:image/png;base64,@@@@")
    assert "is empty" in reason(images, "data:image/png;base64,")
    assert "larger than 1,000 bytes" in reason(images, "data:image/png;base64," + "A" * 2000)


@pytest.mark.parametrize(
    "url",
    [
        "s3n://bucket/a.png",
        "file:///etc/passwd",
        "images/a.png",
        "C:\\a.png",
        "//host/a.png",
        "http://",
        "http://[::broken]/a.png",
        "http://host:99999999/a.png",
        "http://host/\ud800.png",
        "s3://bucket/\udfff.png",
        "",
        "   ",
    ],
)
def test_other_addresses_are_refused_without_a_request(images: Images, host: Server, url: str) -> None:
    assert reason(images, url)
    assert host.seen == []


def test_missing_field_is_a_reason(images: Images) -> None:
    with pytest.raises(ImageUnavailable, match="no image address"):
        images.fetch(None, PROJECT)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@host/a.png?token=secret#secret", "https://host/a.png?..."),
        ("/data/local-files/?d=study/a.png&token=secret", "/data/local-files/?d=study/a.png"),
        ("/data/upload/a.png", "/data/upload/a.png"),
        ("s3://bucket/key.png?secret", "s3://bucket/key.png?..."),
        ("data:image/png;base64,secret", "data: URL of 28 characters"),
    ],
)
def test_shown_url_keeps_no_secret(url: str, shown: str) -> None:
    assert shown_url(url) == shown


# --- what can go wrong


def test_missing_file_names_the_address_but_not_its_query(images: Images, elsewhere: Server) -> None:
    message = reason(images, f"{elsewhere.url}/gone.png?token=secret")
    assert f"{elsewhere.url}/gone.png?..." in message
    assert "404" in message
    assert "secret" not in message
    assert len(elsewhere.seen) == 1


def test_refused_token_says_so(images: Images, host: Server) -> None:
    host.answers["/data/upload/a.png"] = answer(401, b"{}", "application/json")
    assert "does not accept our access token" in reason(images, "/data/upload/a.png")
    assert len(host.seen) == 1


def test_login_page_is_no_image(images: Images, host: Server) -> None:
    host.answers["/data/upload/a.png"] = redirect("/user/login/?next=/data/upload/a.png")
    host.answers["/user/login/?next=/data/upload/a.png"] = answer(body=b"<!DOCTYPE html>", kind="text/html")
    assert "login page" in reason(images, "/data/upload/a.png")


def test_html_with_an_image_type_is_no_image(images: Images, host: Server) -> None:
    host.answers["/a.png"] = answer(body=b"\n<!doctype HTML><p>no</p>")
    assert "HTML page" in reason(images, "/a.png")


def test_empty_file(images: Images, host: Server) -> None:
    host.answers["/a.png"] = answer(body=b"")
    assert "is empty" in reason(images, "/a.png")


def test_announced_oversize_is_not_read(images: Images, host: Server) -> None:
    host.answers["/a.png"] = answer(body=b"", Content_Length=str(10**12))
    assert "larger than 1,000 bytes" in reason(images, "/a.png")
    assert len(host.seen) == 1


def test_endless_unannounced_body_is_cut(images: Images, host: Server) -> None:
    stopped = threading.Event()

    def endless(handler: BaseHTTPRequestHandler) -> None:
        answer(body=b"", Content_Length="")(handler)
        try:
            while True:
                handler.wfile.write(b"x" * 4096)
        except OSError:
            stopped.set()

    host.answers["/a.png"] = endless
    assert "larger than 1,000 bytes" in reason(images, "/a.png")
    assert stopped.wait(10)


def test_an_answer_that_unpacks_to_a_bomb_is_not_unpacked(images: Images, elsewhere: Server) -> None:
    bomb = gzip.compress(gzip.compress(bytes(10**8)))
    assert len(bomb) < 1000
    elsewhere.answers["/a.png"] = answer(body=bomb, Content_Encoding="gzip, gzip")
    assert "comes compressed (gzip, gzip)" in reason(images, f"{elsewhere.url}/a.png")


def test_truncated_download_is_tried_again_and_then_a_reason(images: Images, host: Server, cache: ImageCache) -> None:
    host.answers["/a.png"] = answer(Content_Length=str(len(PNG) + 7))
    assert "the connection to 127.0.0.1 failed" in reason(images, "/a.png")
    assert len(host.seen) == 3
    assert cache.get(f"{host.url}/a.png") is None


def test_unavailable_server_is_tried_again(images: Images, host: Server) -> None:
    answers = iter([answer(503, b"", "text/plain"), answer(502, b"", "text/plain"), answer()])
    host.answers["/a.png"] = lambda handler: next(answers)(handler)
    assert images.fetch("/a.png", PROJECT) == PNG
    host.answers["/b.png"] = answer(500, b"secret trace", "text/plain")
    assert "500" in reason(images, "/b.png")
    assert host.count() == {"/a.png": 3, "/b.png": 3}


def test_refused_connection(images: Images) -> None:
    server, http = started()
    http.shutdown()
    http.server_close()
    message = reason(images, f"{server.url}/a.png?token=secret")
    assert "the connection to 127.0.0.1 failed" in message
    assert "secret" not in message


# --- many


def test_fetch_many_gives_every_position_once_whatever_is_bad(images: Images, host: Server) -> None:
    urls = []
    for index in range(60):
        urls.append(f"/{index}.png" if index % 7 else ("/gone.png", "ftp://host/x", "")[index // 7 % 3])
        host.answers[f"/{index}.png"] = answer(body=PNG + bytes([index]))
    outcomes = dict(images.fetch_many(urls, PROJECT, workers=8))
    assert sorted(outcomes) == list(range(60))
    for index, outcome in outcomes.items():
        if index % 7:
            assert outcome == PNG + bytes([index])
        else:
            assert isinstance(outcome, ImageUnavailable)


def test_fetch_many_can_be_left_early(images: Images, host: Server) -> None:
    for index in range(50):
        host.answers[f"/{index}.png"] = answer()
    for _ in images.fetch_many([f"/{index}.png" for index in range(50)], PROJECT, workers=2):
        break
    assert len(host.seen) <= 2 * 2


def test_a_second_fetch_comes_from_the_cache(images: Images, host: Server) -> None:
    host.answers["/a.png"] = answer()
    assert images.fetch("/a.png", PROJECT) == images.fetch("/a.png", PROJECT) == PNG
    assert len(host.seen) == 1


# --- the cache


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_cache_stays_within_its_bound_and_drops_the_longest_unused(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "images", 1000)
    for index in range(10):
        cache.put(f"u{index}", bytes([index]) * 100)
        os.utime(cache.path(f"u{index}"), (index, index))
    assert cache.get("u0") == bytes(100)  # used: no longer the oldest
    cache.put("new", b"n" * 150)
    assert size_of(tmp_path) <= 1000
    assert cache.get("u0") == bytes(100)
    assert cache.get("new") == b"n" * 150
    assert cache.get("u1") is None
    assert cache.get("u9") == bytes([9]) * 100


def test_cache_bound_holds_after_every_write_and_after_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for start in (0, 100):
        cache = ImageCache(folder, 5000)
        for index in range(start, start + 100):
            cache.put(f"u{index}", b"x" * (50 + 37 * index % 200))
            assert size_of(folder) <= 5000


def test_what_cannot_fit_is_not_kept(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "images", 100)
    cache.put("small", b"s" * 60)
    cache.put("large", b"x" * 101)
    assert cache.get("large") is None
    assert cache.get("small") == b"s" * 60


def test_left_over_parts_of_killed_writers_go(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    part = folder / "ab" / "tmpxyz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 50)
    os.utime(part, (0, 0))
    ImageCache(folder, 1000).put("u", b"y")
    assert not part.exists()


def test_a_disk_that_fails_costs_only_the_caching(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "images", 1000)
    cache.path("u").parent.write_bytes(b"a file where a folder should be")
    cache.put("u", b"data")
    assert cache.get("u") is None


def test_threads_read_whole_files_or_none(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "images", 40_000)

    def use(worker: int) -> None:
        for turn in range(100):
            name = f"u{(worker * 7 + turn) % 30}"
            data = cache.get(name)
            assert data is None or data == name.encode() * 1000
            cache.put(name, name.encode() * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    assert size_of(tmp_path) <= 40_000


def write_many(folder: Path, first: int) -> None:
    cache = ImageCache(folder, 16_000)
    for index in range(first, first + 200):
        cache.put(f"u{index}", b"x" * 100)
        data = cache.get(f"u{index}")
        assert data is None or data == b"x" * 100


def test_processes_share_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_many, args=(folder, first)) for first in (0, 100, 200)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert size_of(folder) <= 16_000 * (1 + 2 / 16)
    ImageCache(folder, 16_000).put("one more", b"x")
    assert size_of(folder) <= 16_000


# --- a real Label Studio

LABEL_CONFIG = """<View><Image name="image" value="$image"/>
<Choices name="bom" toName="image"><Choice value="benign"/><Choice value="malignant"/></Choices></View>"""


def test_a_real_label_studio_serves_uploads_and_local_files_to_a_refreshed_token(
    label_studio: Any, cache: ImageCache
) -> None:
    project = labelstudio.create_project(label_studio.admin, "Images", LABEL_CONFIG)
    uploaded = labelstudio.call(
        label_studio.admin,
        "POST",
        f"/api/projects/{project['id']}/import?commit_to_project=false",
        files={"file": ("a scan #1.png", PNG, "image/png")},
    )
    (upload,) = labelstudio.call(
        label_studio.admin, "GET", f"/api/projects/{project['id']}/file-uploads?ids={uploaded['file_upload_ids']}"
    )
    folder = label_studio.document_root / "images-of-test-images"
    folder.mkdir()
    (folder / "ä b.png").write_bytes(PNG)
    labelstudio.register_local_storage(label_studio.admin, project["id"], folder)

    client = Client(label_studio.url, label_studio.token)
    images = Images(client.base_url, client.http, cache, 1000, HERE)
    assert images.fetch(f"/data/{upload['file']}", PROJECT) == PNG
    assert images.fetch(f"/data/local-files/?d={folder.name}/ä b.png", PROJECT) == PNG
    assert "500 Internal Server Error, as Label Studio does" in reason(images, "/data/upload/0/gone.png")
    assert "404" in reason(images, f"/data/local-files/?d={folder.name}/gone.png")
    assert "HTML page" in reason(images, "/projects/")
    images.close()
    client.close()

    with httpx.Client() as stranger:
        images = Images(label_studio.url, stranger, ImageCache(cache.folder / "strangers", 1000), 1000, HERE)
        assert "does not accept our access token" in reason(images, f"/data/{upload['file']}")
        images.close()

    client = Client(label_studio.url, "a.b.c")
    images = Images(client.base_url, client.http, ImageCache(cache.folder / "refused", 1000), 1000, HERE)
    with pytest.raises(LabelStudioError, match="does not accept the token"):
        list(images.fetch_many([f"/data/{upload['file']}"], PROJECT, workers=1))
    images.close()
    client.close()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an S3 server on this machine, with an empty bucket "scans"."""
    monkeypatch.setattr(logging.getLogger("werkzeug"), "disabled", True)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys)
    client.create_bucket(Bucket="scans")
    yield client
    server.stop()


@pytest.mark.parametrize("presign", [True, False])
def test_a_real_label_studio_hands_out_objects_of_a_bucket(
    label_studio: Any, s3: Any, cache: ImageCache, presign: bool
) -> None:
    s3.put_object(Bucket="scans", Key="study/ä b+c.png", Body=PNG)
    project = labelstudio.create_project(label_studio.admin, f"Bucket {presign}", LABEL_CONFIG)["id"]
    body = {
        "project": project,
        "bucket": "scans",
        "prefix": "study",
        "s3_endpoint": s3.meta.endpoint_url,
        "aws_access_key_id": "key",
        "aws_secret_access_key": "secret",
        "region_name": "us-east-1",
        "use_blob_urls": True,
        "presign": presign,
    }
    storage = labelstudio.call(label_studio.admin, "POST", "/api/storages/s3", json=body)
    labelstudio.call(label_studio.admin, "POST", f"/api/storages/s3/{storage['id']}/sync")

    client = Client(label_studio.url, label_studio.token)
    (page,) = client.tasks(project)
    (uri,) = [task["data"]["image"] for task in page]
    assert uri == "s3://scans/study/ä b+c.png"
    images = Images(client.base_url, client.http, cache, 1000, HERE)
    assert images.fetch(uri, project) == PNG
    assert ("HTTP 403" if presign else "(424)") in reason(images, "s3://scans/gone.png", project)
    assert "finds no storage for it" in reason(images, "s3://other/a.png", project)
    assert "finds no storage for it" in reason(images, "gs://scans/study/a.png", project)
    s3.delete_object(Bucket="scans", Key="study/ä b+c.png")
    assert images.fetch(uri, project) == PNG, "the cache does not know it by its own name"
    images.close()
    images = Images(client.base_url, client.http, ImageCache(cache.folder / "strict", 1000), 1000, AddressPolicy())
    if presign:  # the bucket's host is not Label Studio
        assert "SECOND_LOOK_IMAGE_PRIVATE_NETWORKS" in reason(images, uri, project)
    images.close()
    client.close()
