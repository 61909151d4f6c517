"""What every request passes: its id, log line and metrics, basic auth, and errors as JSON."""

import time
import uuid

import structlog
from flask import Flask, Response, g, jsonify, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, HTTPException, RequestEntityTooLarge, Unauthorized

from backend.auth import allowed, from_loopback
from backend.payloads import BadPayload
from backend.settings import Settings
from backend.telemetry import Telemetry
from tasks.identity import OtherLabelStudio
from tasks.schema import SchemaError

log = structlog.get_logger(__name__)


def observe(app: Flask, telemetry: Telemetry) -> None:
    """Give each request an id, a log line and its place in the metrics; register it before the others."""

    @app.before_request
    def begin() -> None:
        g.started = time.perf_counter()
        g.request_id = uuid.uuid4().hex[:12]
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request=g.request_id)

    @app.after_request
    def end(response: Response) -> Response:
        seconds = time.perf_counter() - g.started
        telemetry.observe(request.endpoint or "none", response.status_code, seconds)
        write = log.debug if request.endpoint == "health" else log.info
        write(
            "answered",
            method=request.method,
            path=request.path,
            status=response.status_code,
            seconds=round(seconds, 4),
        )
        response.headers["X-Request-Id"] = g.request_id
        return response


def guard(app: Flask, settings: Settings) -> None:
    """Ask for basic auth on everything but /health; without a password, serve this machine alone."""
    username, password = settings.username, settings.password.get_secret_value()

    @app.before_request
    def check() -> None:
        if request.path == "/health":
            return
        if not password:
            # gunicorn's own --bind may differ from our host setting, so the caller's address decides.
            if not from_loopback(request.remote_addr):
                raise Forbidden("without a password this backend serves its own machine: set SECOND_LOOK_PASSWORD")
        elif not allowed(request.authorization, username, password):
            raise Unauthorized(
                "user or password is missing or wrong: give the ML backend in Label Studio basic auth with "
                "SECOND_LOOK_USERNAME and SECOND_LOOK_PASSWORD, and its webhook the same Authorization header",
                www_authenticate=WWWAuthenticate("basic", {"realm": "Second Look"}),
            )


def explain_errors(app: Flask, settings: Settings) -> None:
    """Answer every error with {"error": ...}; what nobody foresaw goes to the log under the request's id."""

    def answer(status: int, message: str) -> tuple[Response, int]:
        return jsonify(error=message, request=g.request_id), status

    @app.errorhandler(BadPayload)
    def bad_payload(error: BadPayload) -> tuple[Response, int]:
        return answer(400, str(error))

    @app.errorhandler(SchemaError)
    def bad_schema(error: SchemaError) -> tuple[Response, int]:
        return answer(422, f"nothing can be learnt with this label config: {error}")

    @app.errorhandler(OtherLabelStudio)
    def other_label_studio(error: OtherLabelStudio) -> tuple[Response, int]:
        log.warning("refused", path=request.path, reason=str(error))  # Label Studio shows its admin the status alone
        return answer(409, str(error))

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(_error: RequestEntityTooLarge) -> tuple[Response, int]:
        return answer(
            413,
            f"the request body is larger than {settings.max_body_mb} MB (SECOND_LOOK_MAX_BODY_MB): raise that, or "
            "select fewer tasks at a time; an annotated one takes some 5 kB",
        )

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        response, status = answer(error.code or 500, error.description or error.name)
        response.status_code = status
        for name, value in error.get_headers():
            if name not in ("Content-Type", "Content-Length"):
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def unforeseen(error: Exception) -> tuple[Response, int]:
        log.error("request failed", path=request.path, exc_info=error)
        return answer(500, "internal error: the backend's log has the reason under this request's id")
