"""Requests to one Label Studio: a token that refreshes itself, answers decoded, refusals named, reads retried."""

import ssl
from collections.abc import Generator, Mapping
from typing import Any

import httpx
import stamina

ATTEMPTS = 5  # of a read, within a minute
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"  # how OpenSSL calls it


class LabelStudioError(RuntimeError):
    """Label Studio refused a call; the message names the call and what it answered.

    status: the HTTP status, where there was an answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class TokenAuth(httpx.Auth):
    """A personal access token is exchanged for access tokens of five minutes; a legacy token is sent as it is.

    The access token is renewed when a call comes back 401, so that no clock has to agree with the server's.
    """

    def __init__(self, base_url: str, token: str) -> None:
        self._refresh_url = f"{base_url.rstrip('/')}/api/token/refresh/"
        self._token = token
        self._personal = token.count(".") == 2  # a JWT; legacy tokens are forty hex digits
        self._access = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if not self._personal:
            request.headers["Authorization"] = f"Token {self._token}"
            yield request
            return
        if self._access:
            request.headers["Authorization"] = f"Bearer {self._access}"
            response = yield request
            if response.status_code != 401:
                return
        renewal = yield httpx.Request("POST", self._refresh_url, json={"refresh": self._token})
        renewal.read()
        if renewal.status_code >= 500:  # a proxy without its server says nothing about the token
            renewal.raise_for_status()
        if renewal.status_code in (400, 401, 403):
            raise LabelStudioError(
                "Label Studio does not accept the token (SECOND_LOOK_LABEL_STUDIO_TOKEN):"
                f" {renewal.status_code} {renewal.text[:200]}. Create a new personal access token there.",
                renewal.status_code,
            )
        self._access = _decoded(renewal)["access"]
        request.headers["Authorization"] = f"Bearer {self._access}"
        yield request


def _decoded(response: httpx.Response) -> Any:
    """The answer's JSON; None for an empty answer. Raises LabelStudioError for whatever is no answer of the API."""
    call = f"{response.request.method} {response.request.url.path}"
    if not response.is_success:
        where = response.headers.get("Location")
        text = f"redirects to {where}: use the address it is served at" if where else response.text[:500]
        raise LabelStudioError(f"{call}: {response.status_code} {text}", response.status_code)
    try:
        return response.json() if response.content else None
    except ValueError as error:
        raise LabelStudioError(
            f"{call}: the answer is no JSON but {response.text[:60]!r}. Is this the address of Label Studio?"
        ) from error


def _worth_retrying(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (502, 503, 504)
    return isinstance(error, httpx.TransportError)


def _trust(ca_file: str) -> ssl.SSLContext | bool:
    try:
        return ssl.create_default_context(cafile=ca_file) if ca_file else True
    except OSError as error:  # also what is no certificate: ssl.SSLError is one
        raise LabelStudioError(
            f"SECOND_LOOK_CA_FILE, {ca_file}: no certificates can be read from it: {error}"
        ) from error


class Transport:
    """One Label Studio over HTTP. Reads are retried; writes are not, since a repeated import would append twice.

    Args:
        base_url: its address, also with a path below which a proxy serves it.
        timeout: seconds of each call.
        ca_file: certificates (PEM) that its own is checked by, in the place of the public ones.
        attempts: how often a read is tried.
    """

    def __init__(
        self, base_url: str, token: str, timeout: float = 120.0, *, ca_file: str = "", attempts: int = ATTEMPTS
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.attempts = attempts
        self.http = httpx.Client(
            base_url=self.base_url,
            auth=TokenAuth(self.base_url, token),
            timeout=timeout,
            follow_redirects=False,
            verify=_trust(ca_file),
        )

    def close(self) -> None:
        """Give the connections back."""
        self.http.close()

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = self.http.request(method, path, **arguments)
        except httpx.ConnectError as error:
            if UNTRUSTED not in str(error):
                raise
            raise LabelStudioError(
                f"the TLS certificate of {self.base_url} is not trusted: {error}. Give the certificate of whoever"
                " signed it (PEM) in SECOND_LOOK_CA_FILE"
            ) from error
        if response.status_code in (502, 503, 504):
            response.raise_for_status()
        return _decoded(response)

    def _read(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        for attempt in stamina.retry_context(on=_worth_retrying, attempts=self.attempts, timeout=60):
            with attempt:
                return self._call("GET", path, params=params)
        raise AssertionError("the last attempt returns or raises")
