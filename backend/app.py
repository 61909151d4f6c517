"""The HTTP contract with Label Studio: /health /setup /predict /webhook /versions; /metrics and /report/N for people.

A web worker reads the store and rings the bell; it learns nothing, waits for nothing and keeps no model, so a
new version reaches all of them with the next request.
"""

from threading import Lock
from typing import Any

from flask import Flask, Response, request
from sqlalchemy import select
from sqlalchemy.exc import NoResultFound
from werkzeug.exceptions import NotFound, ServiceUnavailable

from backend import events, jobs
from backend.label_studio import admit
from backend.live import Live
from backend.middleware import explain_errors, guard, observe
from backend.payloads import (
    check_parameters,
    is_task,
    read_action,
    read_body,
    read_created,
    read_predict,
    read_project,
    read_setup,
)
from backend.settings import Settings
from backend.telemetry import Telemetry
from tasks.identity import check, text_of
from tasks.queue import live_name
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Project, Version


def create_app(settings: Settings) -> Flask:
    """The WSGI application over the store and the bell that `settings` name; its threads share both."""
    app = Flask("second_look", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_mb * 2**20
    store = Store.open(settings.database, settings.migrations_url)
    bell = jobs.Bell(settings)
    live = Live(store, settings)
    telemetry = Telemetry(settings, store)
    observe(app, telemetry)
    guard(app, settings)
    explain_errors(app, settings)

    def registered(body: dict[str, Any]) -> Project:
        project_id, created = read_project(body), read_created(body)
        project = store.project(project_id)
        if project is None:
            raise NotFound(
                f"project {project_id} is not known here: connect this backend to it in Label Studio "
                "(Settings, Model), which sends /setup"
            )
        if created is not None:
            check(project_id, project.created_at, text_of(created))
        return project

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "UP", "model_class": "SecondLook"}

    @app.post("/setup")
    def setup() -> dict[str, Any]:
        asked = read_setup(_body())
        parse_label_config(asked.label_config)
        check_parameters(settings, asked.extra_params)
        known = store.project(asked.project_id)
        project = store.register_project(
            asked.project_id,
            asked.label_config,
            extra_params=asked.extra_params,
            created_at=admit(known, settings, asked.project_id, asked.created),
            connection="hand" if known is None or known.connection == "none" else None,
        )
        return {"model_version": live_name(project.version)}

    @app.post("/predict")
    def predict() -> dict[str, Any]:
        body = _body()
        asked, project = read_predict(body), registered(body)
        answers = iter(live.predict(project.id, [task for task in asked.tasks if is_task(task)]))
        abstained = {"result": [], "score": 0.0, "model_version": live_name(project.version)}
        return {"results": [next(answers) if is_task(task) else abstained for task in asked.tasks]}

    @app.post("/webhook")
    def webhook() -> dict[str, Any]:
        body = _body()
        action = read_action(body)
        if not events.concerns_us(action):
            return {"status": "ignored"}
        return events.hear(store, bell, registered(body).id, action)

    @app.get("/versions")
    def versions() -> dict[str, Any]:
        with store.begin() as session:
            numbers = session.scalars(select(Version.number).distinct().order_by(Version.number)).all()
        return {"versions": [live_name(number) for number in numbers]}

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(telemetry.exposition(), content_type=telemetry.content_type)

    drawing = Lock()

    @app.get("/report/<int:project_id>")
    def report(project_id: int) -> Response:
        from backend.report.facts import gather  # with scipy, which takes seconds: /health is wanted at once
        from backend.report.page import POLICY, render

        # Of 120,000 tasks it takes half a minute: reloading must not use up the threads that annotators wait for.
        if not drawing.acquire(blocking=False):
            raise ServiceUnavailable("a report is being made: ask again in a minute", retry_after=60)
        try:
            page = render(gather(store, settings, project_id))
        except NoResultFound as error:
            raise NotFound(
                f"project {project_id} is not known here: `second-look status` lists those that are"
            ) from error
        finally:
            drawing.release()
        return Response(page, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY})

    return app


def _body() -> dict[str, Any]:
    raw = request.get_data(cache=False)
    request.stream.read(1)  # Werkzeug cuts a body of unannounced length at the limit; the next read says so
    return read_body(raw)
