"""Checks of how a project is connected: its ML backends and webhooks, ours and forgotten ones."""

from collections.abc import Iterator

from backend.doctor.findings import Fault, Unknown, error, known, warning
from backend.doctor.observed import ProjectFacts, Row
from tasks import identity
from tasks.project import TITLE
from tasks.queue import queue_name


def _setup(seen: ProjectFacts) -> str:
    return f"second-look setup --project {seen.id}"


def _address(row: Row) -> str:
    return str(row["url"]).rstrip("/")


def _named(row: Row) -> str:
    return f"ML backend {row['id']} ({row['title']!r}, {_address(row)})"


def _remove_ml(seen: ProjectFacts, row: Row) -> str:
    return f"remove it in the project's Settings, Model (or DELETE /api/ml/{row['id']})"


def _ours(seen: ProjectFacts) -> list[Row]:
    return [row for row in known(seen.ml_backends) if _address(row) == seen.connection.url]


def project(seen: ProjectFacts) -> Iterator[Fault]:
    """The project is connected here, and Label Studio still has it."""
    remote, stored = seen.remote, seen.stored
    if isinstance(stored, Unknown) and stored.status == 404:
        yield error(stored.reason, _setup(seen))
    if isinstance(remote, Unknown) and remote.status == 404:
        yield error(
            f"Label Studio has no project {seen.id} that the token's user can see",
            f"add that user to the project's organization; or, if it was deleted, second-look disconnect"
            f" --project {seen.id}",
        )
    if isinstance(remote, Unknown) or isinstance(stored, Unknown):
        return
    try:
        identity.check(seen.id, stored.row.created_at, remote["created_at"])
    except identity.OtherLabelStudio as other:
        yield error(str(other), "or point SECOND_LOOK_LABEL_STUDIO_URL back to the Label Studio that it served")


def ml_backend(seen: ProjectFacts) -> Iterator[Fault]:
    """The project has our ML backend, and Label Studio reaches it."""
    if seen.poll:
        return
    ours, url = _ours(seen), seen.connection.url
    if not ours:
        others = [row for row in known(seen.ml_backends) if row["title"] == TITLE]
        if others:
            yield error(
                f"{_named(others[0])} is not at this backend's address, {url}",
                f"{_setup(seen)} moves it; if the address is right, set SECOND_LOOK_PUBLIC_URL to it",
            )
        else:
            yield error(f"the project has no ML backend at {url}", _setup(seen))
        return
    row = ours[0]
    if row["state"] == "DI":
        yield error(
            f"Label Studio cannot reach {_named(row)}: {row['readable_state']} {row['error_message'] or ''}".rstrip(),
            "start second-look serve; if it runs, see whether Label Studio's machine reaches the address"
            f" (SECOND_LOOK_PUBLIC_URL), and sign it in with the present password: {_setup(seen)}",
        )
    elif row["state"] == "ER":
        yield error(f"{_named(row)} refuses the project: {row['error_message']}", "change what it names")


def half_connected(seen: ProjectFacts) -> Iterator[Fault]:
    """No ML backend is left over from an attempt in which Label Studio refused its webhook.

    With only one of the two switches Label Studio answers 403 and keeps the ML backend all the same: judged by an ML
    backend of ours without any webhook to us, while Label Studio blocks the webhook's address.
    """
    if seen.poll or not _ours(seen) or _our_webhooks(seen):
        return
    if known(seen.backend.url_refusals["webhook"]) is not None:
        row = _ours(seen)[0]
        yield error(
            f"{_named(row)} is left over from an attempt that Label Studio refused half-way: it has no webhook, and"
            " its address is blocked for one",
            f"start Label Studio with SSRF_PROTECTION_ENABLED=false too, then {_setup(seen)}; or"
            f" {_remove_ml(seen, row)} and connect with second-look setup --project {seen.id} --poll",
        )


def orphan_ml_backends(seen: ProjectFacts) -> Iterator[Fault]:
    """No ML backend is there twice, or at an address that no longer answers."""
    connection = seen.connection
    for row in known(seen.ml_backends):
        if _address(row) != connection.url:
            if row["state"] == "DI":
                yield warning(
                    f"{_named(row)} does not answer: opening a task without a prediction waits for it, and each submit"
                    " for its webhook",
                    f"{_remove_ml(seen, row)}, and its webhook in Settings, Webhooks",
                )
        elif row != _ours(seen)[0]:
            yield warning(f"{_named(row)} is a second one at the same address", _remove_ml(seen, row))


def title(seen: ProjectFacts) -> Iterator[Fault]:
    """The project's version is no ML backend's title, which would make Label Studio serve at random."""
    version = known(seen.remote)["model_version"]
    published = known(seen.stored).row.published
    name = None if published is None else queue_name(published)
    for row in known(seen.ml_backends):
        if row["title"] == name:
            yield error(
                f"the title of {_named(row)} is the name of the published version",
                f"give it another title, such as {TITLE!r}, in Settings, Model",
            )
        elif version and row["title"] == version:
            yield error(
                f"the project's version is {version!r}, the title of {_named(row)}: Label Studio asks it for each task"
                " and serves at random",
                f"{_setup(seen)}; it happens when 'Use predictions to prelabel tasks' is set to the model in Settings,"
                " Annotation: choose the version named ...-queue-order there",
            )


def _our_webhooks(seen: ProjectFacts) -> list[Row]:
    return [row for row in known(seen.webhooks) if row["url"] == seen.connection.webhook_url]


def webhook(seen: ProjectFacts) -> Iterator[Fault]:
    """Label Studio tells us of every event, and gets in."""
    if seen.poll:
        return
    connection = seen.connection
    ours = _our_webhooks(seen)
    if not ours:
        yield error(
            f"the project has no webhook to {connection.webhook_url}: answers are only found every"
            f" {seen.backend.settings.poll_seconds:g} s",
            _setup(seen),
        )
        return
    row = ours[0]
    if not row["is_active"]:
        yield error(f"webhook {row['id']} is switched off", _setup(seen))
    if not row["send_for_all_actions"] or not row["send_payload"]:
        yield error(
            f"webhook {row['id']} does not send everything: send_for_all_actions {row['send_for_all_actions']},"
            f" send_payload {row['send_payload']}",
            _setup(seen),
        )
    if connection.password and not connection.signs(row):
        yield error(
            f"webhook {row['id']} carries no valid authorization, so that the backend refuses its events",
            f"{_setup(seen)} sets its Authorization header",
        )


def orphan_webhooks(seen: ProjectFacts) -> Iterator[Fault]:
    """No webhook is there twice, or was left behind by an ML backend that is gone."""
    ours = _our_webhooks(seen)
    remove = "remove it in the project's Settings, Webhooks (or DELETE /api/webhooks/{}/)"
    for row in ours[1:]:
        yield warning(f"webhook {row['id']} sends every event to {row['url']} once more", remove.format(row["id"]))
    backends = {f"{_address(row)}/webhook" for row in known(seen.ml_backends)}
    for row in known(seen.webhooks):
        if row not in ours and row["url"].endswith("/webhook") and row["url"] not in backends:
            yield warning(
                f"webhook {row['id']} to {row['url']} belongs to no ML backend of the project: Label Studio keeps it"
                " when the ML backend is removed, and each submit waits up to a second for it",
                remove.format(row["id"]),
            )
