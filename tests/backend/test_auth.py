"""Basic auth, the rule about listening, and log lines without secrets."""

import base64
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Authorization

from backend import logs
from backend.auth import ListenRefused, allowed, check_listen, from_loopback
from backend.settings import Settings

SECRET = "correct-horse-battery"


def basic(username: str, password: str) -> Authorization | None:
    return Authorization.from_header("Basic " + base64.b64encode(f"{username}:{password}".encode()).decode())


@given(
    st.text(st.characters(exclude_characters=":", exclude_categories=["Cs", "Cc"])),
    st.text(st.characters(exclude_categories=["Cs", "Cc"])),
)
def test_the_right_pair_is_allowed_and_no_other(username: str, password: str) -> None:
    assert allowed(basic(username, password), username, password)
    assert not allowed(basic(username, password + "x"), username, password)
    assert not allowed(basic(username + "x", password), username, password)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic !!!",
        "Basic dTpw",
        "Bearer " + SECRET,
        "Token " + SECRET,
        "Digest username=u",
        "Basic dTo=",
    ],
)
def test_anything_else_is_refused(header: str | None) -> None:
    assert not allowed(Authorization.from_header(header), "u", SECRET)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "backend.example.org", ""])
def test_no_listening_beyond_loopback_without_a_password(host: str) -> None:
    with pytest.raises(ListenRefused, match="SECOND_LOOK_PASSWORD"):
        check_listen(Settings(host=host, password=""))
    check_listen(Settings(host=host, password=SECRET))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.5", "::1", "localhost"])
def test_loopback_needs_no_password(host: str) -> None:
    check_listen(Settings(host=host, password=""))


@pytest.mark.parametrize(
    ("address", "here"), [("127.0.0.1", True), ("::1", True), ("172.17.0.1", False), (None, False), ("", False)]
)
def test_from_loopback(address: str | None, here: bool) -> None:
    assert from_loopback(address) is here


@contextmanager
def logging_as(form: Literal["console", "json"]) -> Iterator[None]:
    """The real configuration, for as long as it is wanted."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    logs.configure(form, secrets=[SECRET])
    try:
        yield
    finally:
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.raiseExceptions = raising


forms = pytest.mark.parametrize("form", ["console", "json"])


@forms
def test_secrets_are_masked_by_key_by_form_and_by_value(
    form: Literal["console", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    with logging_as(form):
        structlog.get_logger("test").info(
            f"said {SECRET}",
            access_token="s3cr3t-a",
            headers={"Authorization": "Basic s3cr3t-b", "Accept": "visible-1"},
            nested=[{"PASSWORD": "s3cr3t-c"}, ("Authorization: Bearer s3cr3t-d",)],
            url="https://user:s3cr3t-e@host/a?token=s3cr3t-f&x=visible-2&X-Amz-Signature=s3cr3t-g",
            jwt="eyJhbGciOiJIUzI1NiJ9.s3cr3t-h.s3cr3t-i",
            body='{"access_token": "s3cr3t-j", "hostname": "visible-3"}',
            count=3,
        )
        logging.getLogger("a.library").warning("password=s3cr3t-k and %s", SECRET)
    written = capsys.readouterr().err
    assert SECRET not in written
    assert "s3cr3t" not in written
    for visible in ("visible-1", "visible-2", "visible-3", "a.library"):
        assert visible in written


@forms
def test_tracebacks_show_no_local_variables_and_no_secrets(
    form: Literal["console", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(local: str) -> None:
        raise ValueError(f"password={SECRET} refused, Authorization: Basic s3cr3t, {len(local)}")

    for name in ("test", "a.library"):
        with logging_as(form):
            log = structlog.get_logger(name) if name == "test" else logging.getLogger(name)
            try:
                fail("local".upper())
            except ValueError:
                log.exception("failed")
        written = capsys.readouterr().err
        assert "ValueError" in written
        assert "in fail" in written
        assert "LOCAL" not in written
        assert SECRET not in written
        assert "Basic s3cr3t" not in written


def test_httpx_does_not_log_addresses(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_as("console"):
        logging.getLogger("httpx").info("HTTP Request: GET https://host/?sig=1")
    assert capsys.readouterr().err == ""


def test_json_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_as("json"):
        structlog.get_logger("test").info("hello", project=1, labels={"a": ("b",)})
    line = json.loads(capsys.readouterr().err)
    assert line["event"] == "hello"
    assert line["project"] == 1
    assert line["labels"] == {"a": ["b"]}
    assert line["level"] == "info"
