"""The bodies that Label Studio sends, checked, with a message that an admin understands for what is wrong."""

import json
from dataclasses import dataclass
from typing import Any

from backend.settings import Settings
from tasks.identity import second_of

LARGEST_ID = 2**31 - 1  # Label Studio's own identifiers are 32-bit integers


class BadPayload(ValueError):
    """A request body that cannot be understood; the message names the field and holds none of its values."""


@dataclass(frozen=True)
class Setup:
    """What we take from /setup; its access token is not among it.

    created: when the project was made, in seconds since the epoch; None where the call does not say.
    """

    project_id: int
    created: int | None
    label_config: str
    extra_params: dict[str, Any]


@dataclass(frozen=True)
class Predict:
    """What we take from /predict."""

    project_id: int
    tasks: list[Any]


def read_body(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`; raises BadPayload."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadPayload("the request body is not valid JSON") from error
    if not isinstance(body, dict):
        raise BadPayload("the request body must be a JSON object")
    return body


def check_parameters(settings: Settings, extra_params: dict[str, Any]) -> None:
    """Raise BadPayload where a value among the ML backend's extra parameters is not allowed."""
    try:
        settings.tuned(extra_params)
    except ValueError as error:
        raise BadPayload(str(error)) from error


def read_setup(body: dict[str, Any]) -> Setup:
    """The project, its label config and parameters; raises BadPayload."""
    label_config = body.get("schema")
    if not isinstance(label_config, str) or not label_config.strip():
        raise BadPayload("'schema' must be the project's label config (XML text); save one in Label Studio first")
    if not _is_unicode(label_config):
        raise BadPayload("'schema' is not valid Unicode text")
    extra_params = body.get("extra_params")
    if isinstance(extra_params, str):
        try:
            extra_params = json.loads(extra_params) if extra_params.strip() else None
        except (ValueError, RecursionError) as error:
            raise BadPayload("'extra_params' of the ML backend must be a JSON object") from error
    if extra_params is None:
        extra_params = {}
    if not isinstance(extra_params, dict):
        raise BadPayload("'extra_params' of the ML backend must be a JSON object")
    return Setup(read_project(body), read_created(body), label_config, extra_params)


def read_predict(body: dict[str, Any]) -> Predict:
    """The project and its tasks, as they came; raises BadPayload."""
    tasks = body.get("tasks")
    if not isinstance(tasks, list):
        raise BadPayload("'tasks' must be a list of tasks")
    return Predict(read_project(body), tasks)


def read_action(body: dict[str, Any]) -> str:
    """What a webhook tells of; raises BadPayload."""
    action = body.get("action")
    if not isinstance(action, str) or not action:
        raise BadPayload("'action' must name the event; switch on 'Send payload' in the webhook's settings")
    return action


def read_project(body: dict[str, Any]) -> int:
    """The project's number, from "<number>.<time>", a number, or an object with `id`; raises BadPayload."""
    value = body.get("project")
    if isinstance(value, dict):
        value = value.get("id")
    if isinstance(value, str):
        number = value.partition(".")[0]
        value = int(number) if number.isascii() and number.isdecimal() and len(number) <= 10 else None
    if not _is_id(value):
        raise BadPayload('\'project\' must name a project of Label Studio, as "2.1795277263" or {"id": 2}')
    assert isinstance(value, int)
    return value


def read_created(body: dict[str, Any]) -> int | None:
    """When the project was made, in seconds since the epoch, from "<number>.<time>" or an object with `created_at`."""
    value = body.get("project")
    if isinstance(value, str):
        second = value.partition(".")[2]
        return int(second) if second.isascii() and second.isdecimal() and len(second) <= 10 else None
    if isinstance(value, dict) and isinstance(value.get("created_at"), str):
        try:
            return second_of(value["created_at"])
        except ValueError:
            return None
    return None


def is_task(task: Any) -> bool:
    """Whether a task has what a prediction needs: an id and an object with its data."""
    return isinstance(task, dict) and _is_id(task.get("id")) and isinstance(task.get("data"), dict)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_ID


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
