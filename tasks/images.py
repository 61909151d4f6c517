"""Fetch the bytes of a task's image, from Label Studio or elsewhere, through a bounded cache on disk.

Label Studio's token goes to Label Studio alone: every address, those of redirects included, is routed anew by
`Images._route`, the one place that decides who is asked and with which credentials. Who is not Label Studio is asked by
a client that connects only where the admin allows.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import httpx
import stamina

from tasks.addresses import AddressPolicy, AddressRefused, guarded_client
from tasks.image_cache import ImageCache

__all__ = ["ImageCache", "ImageUnavailable", "Images", "shown_url"]

REDIRECTS = 5
ATTEMPTS = 3
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
SECONDS_PER_IMAGE = 120.0
STORAGE_SCHEMES = ("s3", "gs", "azure-blob")
"""What Label Studio calls objects of the buckets connected to a project; it alone has the keys to them."""


class ImageUnavailable(ValueError):
    """This image cannot be had; the message says why, names its address and holds no secret."""


class _TryAgain(Exception):
    """A failure that may pass: the connection, or a 5xx answer. Its message holds no address."""


def shown_url(url: str) -> str:
    """`url` as it may stand in a message or a log: no user info, no query but a local-files path."""
    if url[:5].lower() == "data:":
        return f"data: URL of {len(url)} characters"
    bare, _, query = url.partition("#")[0].partition("?")
    scheme, separator, rest = bare.partition("://")
    if separator:
        host, slash, path = rest.partition("/")
        bare = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    if query:
        local_file = bare.rstrip("/").endswith("/data/local-files") and query.startswith("d=")
        bare += f"?{query.partition('&')[0]}" if local_file else "?..."
    return bare if len(bare) <= 300 else f"{bare[:297]}..."


class Images:
    """The images of one Label Studio at `base_url` (which may have a sub-path).

    `public_url`: where people reach the same Label Studio, which writes that address into the tasks of a synced storage
    of local files; it is asked at `base_url` for them.
    `http` is authorised to that Label Studio and used for nothing else; other hosts are asked, where `policy` allows
    them, by a client of our own that knows no credentials and trusts `ca_file` beside the public certificates. No image
    may pass `max_image_bytes`. Threads may share one object.
    """

    def __init__(
        self,
        base_url: str,
        http: httpx.Client,
        cache: ImageCache,
        max_image_bytes: int,
        policy: AddressPolicy,
        ca_file: str = "",
        public_url: str = "",
    ) -> None:
        base = httpx.URL(base_url)
        self._base = base
        self._public = httpx.URL(public_url) if public_url else base
        self._origin = str(base.copy_with(path="/", query=None, fragment=None)).rstrip("/")
        self._prefix = base.path.rstrip("/")
        self._authorised = http
        self._plain = guarded_client(policy, ca_file)
        self._cache = cache
        self._max_image_bytes = max_image_bytes

    def close(self) -> None:
        """Close our own client; the authorised one belongs to the caller."""
        self._plain.close()

    def fetch(self, url: str, project_id: int) -> bytes:
        """The bytes behind `url` as found in a task of that project: site-relative, http(s), an object of a storage
        connected to the project (s3://, gs://, azure-blob://) or data:image/...;base64.

        Raises ImageUnavailable where there is none to be had. What the authorised client raises because its token
        is refused for everything (LabelStudioError) is no matter of this image, and passes.
        """
        if not isinstance(url, str) or not url.strip():
            raise ImageUnavailable("the task has no image address; fill the field that the Image tag names")
        url = url.strip()
        try:
            url.encode()
        except UnicodeEncodeError as error:
            raise ImageUnavailable(f"{shown_url(url)!a} is not a valid address: it has half a character") from error
        if url[:5].lower() == "data:":
            return self._decode(url)
        if url.partition("://")[0] in STORAGE_SCHEMES:
            address = self._storage_address(url, project_id)
            # Not the signed address, which is another each time; two projects may mean two servers by one name.
            key = f"project {project_id}: {url}"
        else:
            address = self._resolve(url)
            key = str(address)
        data = self._cache.get(key)
        if data is None:
            data = self._download(address, shown_url(url))
            self._cache.put(key, data)
        return data

    def fetch_many(
        self, urls: Sequence[str], project_id: int, workers: int
    ) -> Iterator[tuple[int, bytes | ImageUnavailable]]:
        """(position in `urls`, bytes or the reason there are none), each position once, as they come in.

        No more than twice `workers` images wait in memory for a slow consumer.
        """
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="images") as pool:
            running: dict[Future[bytes], int] = {}
            upcoming = iter(enumerate(urls))
            try:
                while True:
                    while len(running) < 2 * workers and (item := next(upcoming, None)) is not None:
                        running[pool.submit(self.fetch, item[1], project_id)] = item[0]
                    if not running:
                        return
                    for done in wait(running, return_when=FIRST_COMPLETED).done:
                        index = running.pop(done)
                        try:
                            outcome: bytes | ImageUnavailable = done.result()
                        except ImageUnavailable as reason:
                            outcome = reason
                        yield index, outcome
            finally:
                for future in running:
                    future.cancel()

    def _resolve(self, url: str) -> httpx.URL:
        """The address to ask for `url`, site-relative ones below the base URL's sub-path."""
        site_relative = url.startswith("/") and not url.startswith("//")
        if site_relative:
            below = url == self._prefix or url.startswith(f"{self._prefix}/")
            url = self._origin + ("" if below else self._prefix) + url
        try:
            address = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ImageUnavailable(f"{shown_url(url)} is not a valid address: {error}") from error
        if address.port is not None and not 0 < address.port < 65536:
            raise ImageUnavailable(f"{shown_url(url)} is not a valid address: port {address.port}")
        if address.scheme not in ("http", "https") or not address.host:
            raise ImageUnavailable(
                f"{shown_url(url)} cannot be fetched: only Label Studio's own paths (/data/...), http(s) addresses,"
                " data:image/...;base64 and objects of connected storages (s3://, gs://, azure-blob://) can"
            )
        if _is_below(address, self._public):
            rest = address.raw_path[len(self._public.raw_path.rstrip(b"/")) :]
            return self._base.copy_with(raw_path=self._prefix.encode() + rest)
        return address

    def _storage_address(self, uri: str, project_id: int) -> httpx.URL:
        """Where Label Studio hands out the object: redirecting to a signed address, or itself, as is set there."""
        encoded = base64.urlsafe_b64encode(uri.encode()).decode()
        return self._resolve(f"/projects/{project_id}/resolve/?fileuri={encoded}")

    def _is_label_studio(self, address: httpx.URL) -> bool:
        return _is_below(address, self._base)

    def _route(self, address: httpx.URL) -> httpx.Client:
        """Who asks for `address`: the one place for credentials. Our own client refuses what is not allowed."""
        return self._authorised if self._is_label_studio(address) else self._plain

    def _decode(self, url: str) -> bytes:
        header, comma, body = url.partition(",")
        if not comma or not header.lower().startswith("data:image/") or not header.lower().endswith(";base64"):
            raise ImageUnavailable(f"{shown_url(url)}: only data:image/...;base64,... is understood")
        if len(body) * 3 // 4 > self._max_image_bytes + 2:
            raise self._oversize(url)
        try:
            data = base64.b64decode("".join(body.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ImageUnavailable(f"{shown_url(url)}: its base64 is broken: {error}") from error
        return self._checked(url, data)

    def _download(self, address: httpx.URL, asked: str) -> bytes:
        """asked: what the task says, as it may stand in a message."""
        try:
            for attempt in stamina.retry_context(
                on=_TryAgain, attempts=ATTEMPTS, timeout=SECONDS_PER_IMAGE, wait_initial=0.2, wait_max=2.0
            ):
                with attempt:
                    return self._follow(address, asked)
        except _TryAgain as error:
            raise ImageUnavailable(f"{asked}: {error}") from error
        raise AssertionError("stamina ends with a result or an exception")

    def _follow(self, address: httpx.URL, asked: str) -> bytes:
        """Ask for `address`, through redirects, each of which is routed anew."""
        for _ in range(REDIRECTS + 1):
            client = self._route(address)
            try:
                with client.stream(
                    "GET",
                    address,
                    headers={"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
                    follow_redirects=False,
                    timeout=TIMEOUT,
                ) as response:
                    if not response.has_redirect_location:
                        if self._is_label_studio(address):
                            self._check_storage(response, asked)
                        return self._read(response, address)
                    address = self._resolve(str(address.join(response.headers["Location"])))
            except httpx.InvalidURL as error:
                raise ImageUnavailable(f"{asked} redirects to an invalid address") from error
            except AddressRefused as error:
                raise ImageUnavailable(f"{asked}: {error}") from error
            except httpx.TransportError as error:
                reason = f"the connection to {address.host} failed: {type(error).__name__}: {error}"
                raise _TryAgain(reason) from error
            except httpx.HTTPError as error:
                raise ImageUnavailable(f"{asked}: {type(error).__name__}: {error}") from error
        raise ImageUnavailable(f"{asked} redirects more than {REDIRECTS} times")

    def _check_storage(self, response: httpx.Response, asked: str) -> None:
        """What Label Studio's answers mean for an object of a storage."""
        if asked.partition("://")[0] not in STORAGE_SCHEMES:
            return
        if response.status_code == 404:
            raise ImageUnavailable(
                f"{asked}: Label Studio finds no storage for it; connect its bucket to the project as a source storage"
            )
        if response.status_code == 424:
            raise _TryAgain("Label Studio cannot read it from the storage (424): it is gone, or the storage is")

    def _read(self, response: httpx.Response, address: httpx.URL) -> bytes:
        url = str(address)
        status = response.status_code
        if status >= 500:
            hint = ", as Label Studio does for an upload it does not know" if self._is_label_studio(address) else ""
            raise _TryAgain(f"the server answers {status} {response.reason_phrase}{hint}")
        if status in (401, 403) and self._is_label_studio(address):
            raise ImageUnavailable(
                f"{shown_url(url)}: HTTP {status}, Label Studio does not accept our access token for it"
            )
        if status != 200:
            raise ImageUnavailable(f"{shown_url(url)}: HTTP {status} {response.reason_phrase}")
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise self._html_page(address)
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":  # not asked for: it may unpack to a thousand times its size at one go
            raise ImageUnavailable(f"{shown_url(url)} comes compressed ({encoding[:40]}) although we ask for it plain")
        expected = response.headers.get("Content-Length", "")
        if expected.isdecimal() and int(expected) > self._max_image_bytes:
            raise self._oversize(url)
        deadline = time.monotonic() + SECONDS_PER_IMAGE
        chunks: list[bytes] = []
        size = 0
        for chunk in response.iter_raw():
            size += len(chunk)
            if size > self._max_image_bytes:
                raise self._oversize(url)
            if time.monotonic() > deadline:
                raise ImageUnavailable(f"{shown_url(url)} takes longer than {SECONDS_PER_IMAGE:.0f} s")
            chunks.append(chunk)
        data = self._checked(url, b"".join(chunks))
        if data[:256].lstrip().lower().startswith((b"<!doctype html", b"<html")):
            raise self._html_page(address)
        return data

    def _checked(self, url: str, data: bytes) -> bytes:
        if len(data) > self._max_image_bytes:
            raise self._oversize(url)
        if not data:
            raise ImageUnavailable(f"{shown_url(url)} is empty")
        return data

    def _oversize(self, url: str) -> ImageUnavailable:
        return ImageUnavailable(
            f"{shown_url(url)} is larger than {self._max_image_bytes:,} bytes (SECOND_LOOK_MAX_IMAGE_MB)"
        )

    def _html_page(self, address: httpx.URL) -> ImageUnavailable:
        if self._is_label_studio(address) and "/user/login" in address.path:
            return ImageUnavailable(
                f"{shown_url(str(address))}: Label Studio's login page: it does not accept our access token"
            )
        return ImageUnavailable(f"{shown_url(str(address))} is an HTML page, not an image")


def _is_below(address: httpx.URL, base: httpx.URL) -> bool:
    same_origin = (address.scheme, address.host, address.port) == (base.scheme, base.host, base.port)
    return same_origin and f"{address.path}/".startswith(f"{base.path.rstrip('/')}/")
