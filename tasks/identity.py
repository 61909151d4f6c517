"""Which Label Studio a project is of: two of them number their projects alike, but made them at different times."""

from datetime import UTC, datetime

from tasks.client import LabelStudioError

ADVICE = (
    "One backend serves one Label Studio: start another one for it, with a SECOND_LOOK_STATE_DIR (and"
    " SECOND_LOOK_DATABASE_URL) of its own"
)


class OtherLabelStudio(LabelStudioError):
    """A project is of another Label Studio than the one this backend serves."""


def second_of(created_at: str) -> int:
    """Whole seconds since the epoch of Label Studio's `created_at` (ISO 8601), as its calls of us name a project."""
    return int(datetime.fromisoformat(created_at).timestamp())


def text_of(second: int) -> str:
    """The time (ISO 8601, UTC) of a number of seconds since the epoch."""
    return datetime.fromtimestamp(second, UTC).isoformat()


def check(project_id: int, known: str | None, seen: str) -> None:
    """Raise OtherLabelStudio where the two times differ, to the second; None: nothing is known yet."""
    if known is not None and second_of(known) != second_of(seen):
        raise OtherLabelStudio(
            f"project {project_id} of this backend was made at {known}, this one at {seen}: it is of another Label"
            f" Studio. {ADVICE}"
        )
