"""Connecting a Label Studio project: what would have to change, and changing it; run it again and nothing changes.

First the plan, from what Label Studio shows; then its changes, one by one. A dry run prints the plan alone.
"""

import base64
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from tasks.client import Client, LabelStudioError

SAMPLING = "Uncertainty sampling"
DEFAULT_SAMPLING = "Sequential sampling"
TITLE = "Second Look"

Row = dict[str, Any]


def basic_authorization(username: str, password: str) -> str:
    """The Authorization header that our webhook carries, since Label Studio sends none of its own there."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


@dataclass(frozen=True)
class Connection:
    """How a project is to be connected.

    backend_url: where Label Studio reaches the backend. Without a password nothing signs in (the backend then serves
    its own machine alone). poll: neither ML backend nor webhook; the worker asks for everything.
    """

    backend_url: str
    username: str
    password: str
    poll: bool = False

    @property
    def url(self) -> str:
        """The backend's address without a trailing slash."""
        return self.backend_url.rstrip("/")

    @property
    def webhook_url(self) -> str:
        """Where Label Studio sends its events: it makes a webhook of this address for each ML backend."""
        return f"{self.url}/webhook"

    @property
    def headers(self) -> dict[str, str]:
        """What the webhook has to carry."""
        return {"Authorization": basic_authorization(self.username, self.password)} if self.password else {}

    def signs(self, row: Row) -> bool:
        """Whether a webhook carries our authorization."""
        return bool(self.headers) and self.headers.items() <= (row["headers"] or {}).items()


@dataclass(frozen=True)
class Change:
    """One change: a sentence that tells of it, and the call that makes it."""

    what: str
    apply: Callable[[], object]


@dataclass(frozen=True)
class _Seen:
    """What Label Studio shows of a project, and which of its connections are ours."""

    project: Row
    backends: list[Row]
    webhooks: list[Row]


def _look(client: Client, project_id: int, connection: Connection) -> _Seen:
    backends = [  # an admin may have connected the address by hand, under another title
        row
        for row in client.ml_backends(project_id)
        if row["title"] == TITLE or row["url"].rstrip("/") == connection.url
    ]
    addresses = {connection.webhook_url, *(f"{row['url'].rstrip('/')}/webhook" for row in backends)}
    webhooks = _our_webhooks(client.webhooks(project_id), connection, addresses)
    return _Seen(client.project(project_id), backends, webhooks)


def _our_webhooks(rows: list[Row], connection: Connection, addresses: Collection[str]) -> list[Row]:
    return [row for row in rows if row["url"] in addresses or connection.signs(row)]


def connection_changes(client: Client, project_id: int, connection: Connection, published: str = "") -> list[Change]:
    """What has to change so that the project serves tasks by `prediction.score` and tells us of its events.

    published: the version whose predictions order the queue; empty: none yet. Returns no change when all is right.
    Raises what the calls of Label Studio's API raise.
    """
    return _connecting(client, project_id, connection, published, _look(client, project_id, connection))


def _connecting(client: Client, project_id: int, connection: Connection, published: str, seen: _Seen) -> list[Change]:
    if connection.poll:
        changes = _removals(client, seen.backends, seen.webhooks)
    else:
        # The webhook first: where Label Studio blocks our address it refuses this without leaving anything, whereas
        # an ML backend stays although its own webhook is refused. And it makes none without authorization then.
        changes = _webhook_changes(client, project_id, connection, seen.webhooks)
        changes += _backend_changes(client, project_id, connection, published, seen.backends)
    if (sampling := seen.project["sampling"]) != SAMPLING:
        changes.append(
            Change(f"sampling: {sampling} -> {SAMPLING}", lambda: client.update_project(project_id, sampling=SAMPLING))
        )
    version = seen.project["model_version"] or ""
    ours = {TITLE, *(row["title"] for row in seen.backends)}
    if version != published and (published or version in ours):
        changes.append(
            Change(
                f"model version: {version or 'none'} -> {published or 'none until the first model'}",
                lambda: client.update_project(project_id, model_version=published),
            )
        )
    return changes


def connect(client: Client, project_id: int, connection: Connection, published: str = "") -> list[str]:
    """Make the changes of `connection_changes`; returns a sentence for each.

    Where Label Studio refuses one, what this call added is taken away again. Raises LabelStudioError, with what to do.
    """
    seen = _look(client, project_id, connection)
    changes = _connecting(client, project_id, connection, published, seen)
    try:
        for change in changes:
            change.apply()
    except LabelStudioError as error:
        before = {row["id"] for row in seen.backends}, {row["id"] for row in seen.webhooks}
        now = _look(client, project_id, connection)
        added = [
            [row for row in rows if row["id"] not in known]
            for rows, known in zip((now.backends, now.webhooks), before, strict=True)
        ]
        for change in _removals(client, *added):
            change.apply()
        raise _explained(error, connection) from error
    return [change.what for change in changes]


def disconnection_changes(
    client: Client,
    project_id: int,
    connection: Connection,
    sampling_before: str = DEFAULT_SAMPLING,
    versions: Collection[str] = (),
) -> list[Change]:
    """What has to change so that nothing of us works on the project any more; annotations and predictions stay.

    sampling_before: what the sampling goes back to. versions: those we published: none of them stays the project's.
    """
    seen = _look(client, project_id, connection)
    changes = _removals(client, seen.backends, seen.webhooks)
    if seen.project["sampling"] == SAMPLING != sampling_before:
        changes.append(
            Change(
                f"sampling: {SAMPLING} -> {sampling_before}",
                lambda: client.update_project(project_id, sampling=sampling_before),
            )
        )
    version = seen.project["model_version"]
    if version and version in {TITLE, *versions, *(row["title"] for row in seen.backends)}:
        changes.append(
            Change(f"model version: {version} -> none", lambda: client.update_project(project_id, model_version=""))
        )
    return changes


def repair_webhook(client: Client, project_id: int, connection: Connection) -> list[str]:
    """Bring our webhook back to what `connect` made of it; one call when nothing happened to it.

    Returns a sentence for each repair. Raises LabelStudioError, with what to do.
    """
    rows = _our_webhooks(client.webhooks(project_id), connection, {connection.webhook_url})
    changes = _webhook_changes(client, project_id, connection, rows)
    try:
        for change in changes:
            change.apply()
    except LabelStudioError as error:
        raise _explained(error, connection) from error
    return [change.what for change in changes]


def hears_events(client: Client, project_id: int, connection: Connection) -> bool:
    """Whether some active webhook of a project that was connected by hand, at whatever address, gets in here."""
    rows = [row for row in client.webhooks(project_id) if row["is_active"]]
    if connection.password:
        return any(connection.signs(row) for row in rows)
    return any(row["url"].endswith("/webhook") for row in rows)


def _removals(client: Client, backends: list[Row], webhooks: list[Row]) -> list[Change]:
    changes = [
        Change(f"ML backend: {row['url']} removed", partial(client.delete_ml_backend, row["id"])) for row in backends
    ]
    return changes + [
        Change(f"webhook: {row['url']} removed", partial(client.delete_webhook, row["id"])) for row in webhooks
    ]


def _backend_changes(
    client: Client, project_id: int, connection: Connection, published: str, rows: list[Row]
) -> list[Change]:
    # An ML backend's title must differ from every version's name: a project whose version equals the title asks
    # the backend for each task and serves at random.
    wanted = {"url": connection.url, "title": TITLE, "is_interactive": False}
    if connection.password:
        wanted |= {"auth_method": "BASIC_AUTH", "basic_auth_user": connection.username}
    else:
        wanted |= {"auth_method": "NONE"}
    body = {"project": project_id, **wanted}
    if connection.password:
        body["basic_auth_pass"] = connection.password

    def write(backend: int | None) -> None:
        if backend is None:
            client.add_ml_backend(body)
        else:
            client.update_ml_backend(backend, body)
        # A project without a version is given a new ML backend's title, and one whose version is the title follows
        # when that changes; our queue needs the published one, or none.
        if client.project(project_id)["model_version"] == TITLE:
            client.update_project(project_id, model_version=published)

    if not rows:
        return [Change(f"ML backend: {connection.url} added", partial(write, None))]
    kept = next((row for row in rows if row["url"].rstrip("/") == connection.url), rows[0])
    shown = kept | {"url": kept["url"].rstrip("/")}
    wrong = [f"{name} {shown[name]!r} -> {value!r}" for name, value in wanted.items() if shown[name] != value]
    # Label Studio never shows the password, but it has just signed in with it to tell us this state.
    if not wrong and kept["state"] != "CO":
        wrong = [f"{kept['readable_state']} ({kept['error_message'] or 'it does not answer'}), signed in anew"]
    changes = []
    if wrong:
        changes.append(
            Change(
                f"ML backend: {connection.url}, {', '.join(wrong)}",
                partial(write, kept["id"]),
            )
        )
    return changes + _removals(client, [row for row in rows if row is not kept], [])


def _webhook_changes(client: Client, project_id: int, connection: Connection, rows: list[Row]) -> list[Change]:
    wanted = {"url": connection.webhook_url, "is_active": True, "send_for_all_actions": True, "send_payload": True}
    if not rows:
        body = {"project": project_id, **wanted, "headers": connection.headers}
        return [Change(f"webhook: {connection.webhook_url} added", lambda: client.save_webhook(body))]

    def faults(row: Row) -> list[str]:
        found = [f"{name} {row[name]!r} -> {value!r}" for name, value in wanted.items() if row[name] != value]
        if connection.headers and not connection.signs(row):
            found.append("authorization set")
        return found

    kept = min(rows, key=lambda row: (row["url"] != connection.webhook_url, len(faults(row)), row["id"]))
    changes = []
    if wrong := faults(kept):
        # Label Studio's own webhook of an ML backend becomes ours; a header that an admin gave it for a proxy stays.
        body = wanted | {"headers": (kept["headers"] or {}) | connection.headers}
        changes.append(
            Change(
                f"webhook: {connection.webhook_url}, {', '.join(wrong)}",
                lambda: client.save_webhook(body, kept["id"]),
            )
        )
    return changes + _removals(client, [], [row for row in rows if row is not kept])


def _explained(error: LabelStudioError, connection: Connection) -> LabelStudioError:
    """What Label Studio refused, with what to do about it."""
    said, todo = str(error), ""
    if "reserved network address" in said or "The provided URL was not allowed" in said:
        todo = (
            "Label Studio blocks local and private addresses. Start it with ML_BLOCK_LOCAL_IP=false and"
            " SSRF_PROTECTION_ENABLED=false, or with USE_DEFAULT_BANNED_SUBNETS=false and the networks to keep"
            " blocked in USER_ADDITIONAL_BANNED_SUBNETS (such as 169.254.0.0/16); or connect with `--poll`, which"
            " needs neither ML backend nor webhook"
        )
    elif "Enter a valid URL" in said:
        todo = (
            f"Label Studio takes {connection.webhook_url} for no address of a webhook: the host needs a dot in its"
            " name (or to be localhost). Set SECOND_LOOK_PUBLIC_URL to such a name or an IP address, or connect with"
            " `--poll`"
        )
    elif "Can't connect to ML backend" in said or "Can't resolve hostname" in said:
        todo = (
            f"Label Studio cannot reach the backend at {connection.url}. Is `second-look serve` running? Set"
            " SECOND_LOOK_PUBLIC_URL to the address at which Label Studio reaches it"
        )
    elif "authentication parameters" in said or "401 Client Error" in said:
        todo = (
            f"the backend at {connection.url} refuses the password: `second-look serve` there was started with other"
            " values of SECOND_LOOK_USERNAME and SECOND_LOOK_PASSWORD"
        )
    elif "409 Client Error" in said:
        todo = f"the backend at {connection.url} serves another Label Studio already: its log says which project"
    return LabelStudioError(f"{todo}. Label Studio said: {said}" if todo else said, error.status)
