"""A real Label Studio on SQLite, started for the demo and prepared the way its own screens would prepare it.

    credentials = Credentials.in_folder(folder)
    url = f"http://127.0.0.1:{port}"
    stack.start(service(folder, port, document_root, credentials))
    admin = session(url, credentials.admin)
    token = personal_access_token(admin, credentials)
    project = create_project(admin, "Demo", label_config)

Everything here can be repeated: a second run finds what the first one made and continues with it.
"""

import json
import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import httpx

from demo.stack import Service
from tasks.client import LabelStudioError

TASK_LOCK_TTL_S = 1800  # the default of a day hides the top of the queue when a browser is closed
START_PATIENCE_S = 300.0  # migrating a fresh SQLite takes 35 to 60 s on two cores
BATCH = 500  # tasks an import request
PAGE = 500
ADMIN = "admin@example.com"
ANNOTATOR = "annotator@example.com"


@dataclass(frozen=True)
class Account:
    """A login of Label Studio."""

    email: str
    password: str


@dataclass
class Credentials:
    """The demo's logins and token, made up once and kept in <folder>/credentials.json, readable by the owner.

    backend_password: what Label Studio sends to the ML backend.
    """

    path: Path
    admin: Account
    annotator: Account
    backend_password: str
    secret_key: str
    personal_access_token: str = ""

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        """Those kept in `folder`, or new ones, which are kept from now on."""
        path = folder / "credentials.json"
        if path.exists():
            kept = json.loads(path.read_text())
            accounts = {name: Account(**kept[name]) for name in ("admin", "annotator")}
            return cls(
                path,
                **accounts,
                backend_password=kept["backend_password"],
                secret_key=kept["secret_key"],
                personal_access_token=kept["personal_access_token"],
            )
        credentials = cls(
            path, _new_account(ADMIN), _new_account(ANNOTATOR), secrets.token_urlsafe(24), secrets.token_hex(32)
        )
        folder.mkdir(parents=True, exist_ok=True)
        credentials.save()
        return credentials

    def save(self) -> None:
        """Write the file with mode 0600 from its first byte on."""
        content = {key: value for key, value in asdict(self).items() if key != "path"}
        draft = self.path.with_suffix(".tmp")
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:  # noqa: PTH123
            json.dump(content, stream, indent=2)
        draft.replace(self.path)


def _new_account(email: str) -> Account:
    return Account(email, secrets.token_urlsafe(12))


def service(
    folder: Path,
    port: int,
    document_root: Path,
    credentials: Credentials,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Service:
    """Label Studio at http://127.0.0.1:<port>, its database and media under `folder`.

    It serves image files under `document_root` (of registered storages only, each in a folder below it). `more` goes
    over its environment. Ready when /health answers: about 5 s on an existing folder, 35 to 60 s on a fresh one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}"
    environment = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder.resolve()),
        # A name set here makes the pages reload for ever when opened under another (localhost for 127.0.0.1).
        "LABEL_STUDIO_HOST": "",
        "LABEL_STUDIO_USERNAME": credentials.admin.email,
        "LABEL_STUDIO_PASSWORD": credentials.admin.password,
        # The key that Label Studio draws for itself may hold signs that it cannot read back at its next start, and
        # every token it has given out is void then.
        "SECRET_KEY": credentials.secret_key,
        "DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(document_root.resolve()),
        # The backend and its webhook live on this machine, whose addresses Label Studio blocks by default.
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "TASK_LOCK_TTL": str(TASK_LOCK_TTL_S),
        # Importing predictions costs by the batch instead of by the project.
        "fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short": "true",
        # Nothing leaves this machine.
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "FEATURE_FLAGS_OFFLINE": "true",
        **more,
    }
    program = str(Path(sys.executable).parent / "label-studio")
    command = [program, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    return Service(
        "label-studio", [*command, "--log-level", "INFO"], environment, lambda: _healthy(url), START_PATIENCE_S
    )


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5.0).status_code == 200
    except httpx.TransportError:
        return False


def session(url: str, account: Account) -> httpx.Client:
    """A client logged in as a browser would be (session cookie, CSRF header). Raises LabelStudioError if refused."""
    client = httpx.Client(base_url=url, timeout=300.0)
    client.get("/user/login/")
    if "csrftoken" not in client.cookies:
        raise LabelStudioError(f"{url} is not Label Studio: another program took its port. Stop it, or try again.")
    form = {"email": account.email, "password": account.password, "persist_session": "on"}
    response = client.post("/user/login/", data=form | {"csrfmiddlewaretoken": client.cookies["csrftoken"]})
    if response.status_code != 302:  # a wrong password shows the form again
        raise LabelStudioError(
            f"{url} refuses the login of {account.email}. Does the credentials file belong to this Label Studio?"
        )
    client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
    return client


def call(session: httpx.Client, method: str, path: str, **arguments: Any) -> Any:
    """The decoded answer of one API call; LabelStudioError names the call and what came back."""
    response = session.request(method, path, **arguments)
    if response.is_error:
        raise LabelStudioError(f"{method} {path}: {response.status_code} {response.text[:500]}")
    return response.json() if response.content else None


def personal_access_token(session: httpx.Client, credentials: Credentials) -> str:
    """The admin's personal access token: the one kept, else a new one, which is kept.

    Label Studio shows a token once and allows one per user, so a lost one has to be revoked there by hand.
    """
    if not credentials.personal_access_token:
        response = session.post("/api/token/")
        if response.status_code == 409:
            raise LabelStudioError(
                f"Label Studio already has a token for {credentials.admin.email} which {credentials.path} does not"
                " hold. Revoke it there (Account & Settings, Personal Access Token) and try again."
            )
        if response.is_error:
            raise LabelStudioError(f"POST /api/token/: {response.status_code} {response.text[:500]}")
        credentials.personal_access_token = response.json()["token"]
        credentials.save()
    return credentials.personal_access_token


def sign_up(admin: httpx.Client, account: Account) -> httpx.Client:
    """A session of a further user of the admin's organisation, who is invited and signed up if need be."""
    url = str(admin.base_url)
    members = call(admin, "GET", "/api/users/")
    if account.email not in {member["email"] for member in members}:
        with httpx.Client(base_url=url, timeout=120.0) as guest:
            link = call(admin, "GET", "/api/invite")["invite_url"]
            guest.get(link)
            form = {"email": account.email, "password": account.password}
            response = guest.post(link, data=form | {"csrfmiddlewaretoken": guest.cookies["csrftoken"]})
        if response.status_code != 302:
            raise LabelStudioError(f"{url} refuses to sign up {account.email} ({response.status_code}).")
    return session(url, account)


def create_project(session: httpx.Client, title: str, label_config: str) -> dict[str, Any]:
    """The project of this title with this label config, as the API shows it; made or brought up to date if need be.

    Raises LabelStudioError when Label Studio refuses the config (for one, because annotations contradict it).
    """
    found = call(session, "GET", "/api/projects", params={"title": title, "page_size": 100})["results"]
    project: dict[str, Any]
    for project in found:
        if project["title"] == title:
            if project["label_config"] != label_config:
                path = f"/api/projects/{project['id']}"
                project = call(session, "PATCH", path, json={"label_config": label_config})
            return project
    project = call(session, "POST", "/api/projects", json={"title": title, "label_config": label_config})
    return project


def register_local_storage(session: httpx.Client, project: int, folder: Path) -> None:
    """Let the project's users see the images under `folder`, which must lie below the document root, not be it."""
    path = str(folder.resolve())
    storages = call(session, "GET", "/api/storages/localfiles", params={"project": project})
    if path not in {storage["path"] for storage in storages}:
        storage = {"project": project, "title": folder.name, "path": path, "use_blob_urls": True}
        call(session, "POST", "/api/storages/localfiles", json=storage)


def config_fields(label_config: str) -> tuple[str, ...]:
    """The task fields that a label config names as `$field`, in order, each once."""
    return tuple(dict.fromkeys(re.findall(r"\$(\w+)", label_config)))


def import_tasks(
    session: httpx.Client,
    project: int,
    data: Sequence[Mapping[str, Any]],
    label_config: str,
    progress: Callable[[int], None] | None = None,
    annotations: Mapping[str, list[dict[str, Any]]] | None = None,
) -> int:
    """Import task data into the project; those whose `file` is there already are left as they are.

    data: one mapping a task, with a `file` that names it. Fields that the config names and a task lacks become "",
    since one lacking field makes Label Studio refuse the whole request. `progress` is told how many are done.
    annotations: of tasks, by their file. Returns how many were imported now.
    """
    empty, annotations = dict.fromkeys(config_fields(label_config), ""), annotations or {}
    present = {task["data"].get("file") for task in list_tasks(session, project)}
    missing = [
        {"data": empty | dict(row), "annotations": annotations.get(row["file"], [])}
        for row in data
        if row["file"] not in present
    ]
    for start in range(0, len(missing), BATCH):
        if progress is not None:
            progress(len(data) - len(missing) + start)
        call(session, "POST", f"/api/projects/{project}/import", json=missing[start : start + BATCH])
    if progress is not None:
        progress(len(data))
    return len(missing)


def list_tasks(session: httpx.Client, project: int) -> list[dict[str, Any]]:
    """All tasks of a project with their data, without annotations and predictions, in the order of import."""
    tasks: list[dict[str, Any]] = []
    total = call(session, "GET", f"/api/projects/{project}")["task_number"]
    while len(tasks) < total:
        page = {"project": project, "page": len(tasks) // PAGE + 1, "page_size": PAGE, "fields": "task_only"}
        tasks += call(session, "GET", "/api/tasks", params=page)["tasks"]
    return tasks


def start_training(session: httpx.Client, project: int) -> None:
    """Press "Start training" of the project's ML backend."""
    backend = call(session, "GET", "/api/ml", params={"project": project})[0]
    call(session, "POST", f"/api/ml/{backend['id']}/train", json={})
