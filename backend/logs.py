"""Log lines, ours and the libraries', in one format and without secrets.

Tracebacks show no local variables: the bodies and headers of requests live there.
"""

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

MASK = "***"
SHORTEST_SECRET = 6  # shorter ones would mask parts of words

_SECRET_KEYS = re.compile(r"authorization|password|passwd|basic_auth_pass|token|secret|api_?key|cookie", re.I)
_SECRETS_IN_TEXT = (
    re.compile(r"(?i)(authorization\W{1,4}(?:basic|bearer|token)\s+)[^\s'\",}]+"),
    re.compile(r"(?i)((?:access_token|token|password|passwd|secret|api_?key)['\"]?\s*[=:]\s*['\"]?)[^\s'\",}&]+"),
    re.compile(r"(?i)([?&](?:sig|signature|x-amz-[a-z-]+|x-goog-[a-z-]+)=)[^\s'\"&]+"),
    re.compile(r"(://)[^\s/@:]*:[^\s/@]*(?=@)"),
    re.compile(r"()\beyJ[\w-]+\.[\w-]+\.[\w-]*"),
)


def masked(value: Any, secrets: Sequence[str] = ()) -> Any:
    """`value` with what is secret replaced: by key in mappings at any depth, by form and by `secrets` in text."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
        for pattern in _SECRETS_IN_TEXT:
            value = pattern.sub(rf"\g<1>{MASK}", value)
        return value
    if isinstance(value, Mapping):
        return {
            key: MASK if isinstance(key, str) and _SECRET_KEYS.search(key) else masked(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(item, secrets) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return masked(str(value), secrets)


def configure(form: Literal["console", "json"], secrets: Sequence[str] = (), level: int = logging.INFO) -> None:
    """Send every log line of this process to stderr as `form`; `secrets` are masked wherever they turn up."""
    known = tuple(secret for secret in secrets if len(secret) >= SHORTEST_SECRET)

    def mask(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {key: item if key.startswith("_") else masked({key: item}, known)[key] for key, item in event.items()}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask,
    ]
    renderer: Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.raiseExceptions = False  # else a line that cannot be written is shown raw, unmasked
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for own in ("gunicorn.error", "gunicorn.access"):
        logging.getLogger(own).handlers.clear()
        logging.getLogger(own).propagate = True
    for chatty in ("httpx", "httpcore", "alembic", "huey", "urllib3"):
        # httpx writes every address it asks, query and all, at the level of information.
        logging.getLogger(chatty).setLevel(logging.WARNING)
