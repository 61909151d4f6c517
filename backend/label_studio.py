"""The one Label Studio that this backend serves: its client, and whether a /setup is of it."""

import queue
import threading
from typing import Any

import httpx
import structlog

from backend.settings import Settings
from tasks import identity
from tasks.client import Client, LabelStudioError
from tasks.tables import Project
from tasks.transport import ATTEMPTS

log = structlog.get_logger()

PATIENCE = 1.5  # seconds: Label Studio gives /setup 3 s, and may itself be waiting for our answer in the meantime


def open_client(settings: Settings, timeout: float = 120.0, attempts: int = ATTEMPTS) -> Client:
    """The client of the Label Studio that the settings name. Raises LabelStudioError for an unreadable CA file."""
    token = settings.label_studio_token.get_secret_value()
    return Client(settings.label_studio_url, token, timeout, ca_file=settings.ca_file, attempts=attempts)


def admit(known: Project | None, settings: Settings, project_id: int, created: int | None) -> str | None:
    """Whether a /setup for this project is of our own Label Studio; returns its `created_at` where it is news.

    known: the project of that number, if there is one. created: the seconds since the epoch that the call names.
    A project that is not known yet is asked for in Label Studio; where that gives no answer in time, the worker finds
    out before it reads anything. Raises OtherLabelStudio.
    """
    seen = None if created is None else identity.text_of(created)
    if known is not None and known.created_at is not None:
        if seen is not None:
            identity.check(project_id, known.created_at, seen)
        return None
    if not settings.label_studio_token.get_secret_value():
        return seen
    try:
        ours = str(_asked_in_time(settings, project_id)["created_at"])
    except (LabelStudioError, httpx.HTTPError, TimeoutError) as error:
        if isinstance(error, LabelStudioError) and error.status == 404:
            raise identity.OtherLabelStudio(
                f"{settings.label_studio_url} has no project {project_id}. {identity.ADVICE}"
            ) from error
        log.warning("Label Studio cannot be asked about a new project", project=project_id, error=str(error))
        return seen
    if seen is not None:
        identity.check(project_id, ours, seen)
    return ours


def _asked_in_time(settings: Settings, project_id: int) -> dict[str, Any]:
    """The project in our Label Studio. Raises what the call raises, and TimeoutError after PATIENCE."""
    answers: queue.SimpleQueue[dict[str, Any] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            client = open_client(settings, PATIENCE, attempts=1)
            try:
                answers.put(client.project(project_id))
            finally:
                client.close()
        except (LabelStudioError, httpx.HTTPError) as error:
            answers.put(error)

    # Renewing the token and asking are two calls, each with time limits for each of its parts: only a thread of its
    # own bounds the whole.
    threading.Thread(target=ask, daemon=True, name=f"ask-project-{project_id}").start()
    try:
        answer = answers.get(timeout=PATIENCE)
    except queue.Empty:
        raise TimeoutError(f"no answer within {PATIENCE} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
