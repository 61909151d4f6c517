"""Connecting a Label Studio project: queue order, ML backend, webhook; run it again and nothing changes."""

import base64

from tasks.client import Client

SAMPLING = "Uncertainty sampling"
TITLE = "Second Look"


def basic_authorization(username: str, password: str) -> str:
    """The Authorization header that our webhook carries, since Label Studio sends none of its own there."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def connect(client: Client, project_id: int, backend_url: str, username: str, password: str) -> list[str]:
    """Make the project serve tasks by `prediction.score`, call our backend and send us its events.

    Returns a sentence for each thing that was changed. Raises LabelStudioError where Label Studio refuses, for
    example because it blocks local addresses.
    """
    changes = []
    backend_url = backend_url.rstrip("/")
    project = client.project(project_id)
    if project["sampling"] != SAMPLING:
        client.update_project(project_id, sampling=SAMPLING)
        changes.append(f"sampling: {project['sampling']} -> {SAMPLING}")

    # An ML backend's title must differ from every version's name: a project whose version equals the title asks
    # the backend for each task and serves at random.
    body = {
        "project": project_id,
        "url": backend_url,
        "title": TITLE,
        "is_interactive": False,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": username,
        "basic_auth_pass": password,
    }
    ours = [
        row
        for row in client.ml_backends(project_id)
        if row["title"] == TITLE or row["url"].rstrip("/") == backend_url  # an admin may have connected it by hand
    ]
    urls = {f"{backend_url}/webhook"}
    if ours:
        client.update_ml_backend(ours[0]["id"], body)  # also unchanged: Label Studio never shows its password
        before = ours[0]["url"].rstrip("/")
        urls.add(f"{before}/webhook")
        if before != backend_url:
            changes.append(f"ML backend: {before} -> {backend_url}")
    else:
        client.add_ml_backend(body)
        changes.append(f"ML backend: {backend_url}")

    changes += _connect_webhook(client, project_id, f"{backend_url}/webhook", urls, username, password)

    # Connecting an ML backend names it as the project's version; our queue needs the published one, or none yet.
    version = client.project(project_id)["model_version"]
    if version == TITLE:
        client.update_project(project_id, model_version="")
        changes.append(f"model version: {TITLE} -> none until the first model")
    return changes


def _connect_webhook(
    client: Client, project_id: int, url: str, known: set[str], username: str, password: str
) -> list[str]:
    headers = {"Authorization": basic_authorization(username, password)}
    body = {
        "project": project_id,
        "url": url,
        "send_payload": True,
        "send_for_all_actions": True,
        "headers": headers,
        "is_active": True,
    }
    # Label Studio makes a webhook of its own, without authorization, for each ML backend: it becomes ours.
    ours = [row for row in client.webhooks(project_id) if row["url"] in known]
    if any(all(row.get(field) == value for field, value in body.items()) for row in ours):
        return []
    client.save_webhook(body, ours[0]["id"] if ours else None)
    return [f"webhook: {url}, with authorization"]
