"""The calls of Label Studio's API that Second Look makes.

What each call really does is measured in Label Studio 1.23.2; several are not what their documentation says.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from tasks.transport import LabelStudioError, Transport

__all__ = ["PAGE", "Client", "LabelStudioError"]  # what the calls raise comes with them

PAGE = 200  # tasks a request: a page with annotations and predictions stays a few MB


class Client(Transport):
    """One Label Studio: its projects, tasks, predictions, Data Manager tabs and connections."""

    def now(self) -> datetime:
        """Label Studio's clock, to the second, by which its tasks' `updated_at` is written."""
        response = self.http.head("/health")
        return parsedate_to_datetime(response.headers["date"])

    def user(self) -> dict[str, Any]:
        """Whom the token belongs to. Raises LabelStudioError, with what to do, where the token is not usable."""
        try:
            answer: dict[str, Any] = self._read("/api/current-user/whoami")
        except LabelStudioError as error:
            if "legacy token authentication has been disabled" not in str(error):
                raise
            raise LabelStudioError(
                "this Label Studio does not accept legacy tokens, and SECOND_LOOK_LABEL_STUDIO_TOKEN is one. Create a"
                " personal access token (Account & Settings, Personal Access Token) and set it instead",
                error.status,
            ) from error
        return answer

    # projects

    def projects(self) -> list[dict[str, Any]]:
        """All projects that the token's owner sees, oldest first."""
        found: list[dict[str, Any]] = []
        for page in itertools.count(1):
            answer = self._read("/api/projects/", {"page": page, "page_size": 100, "ordering": "id"})
            found += answer["results"]
            if not answer["results"] or len(found) >= answer["count"]:
                break
        return found

    def project(self, project_id: int) -> dict[str, Any]:
        """The project's settings and counts."""
        answer: dict[str, Any] = self._read(f"/api/projects/{project_id}/")
        return answer

    def update_project(self, project_id: int, **fields: Any) -> dict[str, Any]:
        """Change fields of the project. `model_version` must name predictions that exist, or be empty."""
        answer: dict[str, Any] = self._call("PATCH", f"/api/projects/{project_id}/", json=fields)
        return answer

    def members(self) -> int:
        """How many people the organization has: each may hold the lock of one task."""
        organizations = self._read("/api/organizations/")
        return sum(
            int(self._read(f"/api/organizations/{row['id']}/memberships", {"page_size": 1}).get("count", 1))
            for row in organizations
        )

    # tasks and annotations

    def tasks(self, project_id: int, since: str | None = None) -> Iterator[list[dict[str, Any]]]:
        """Pages of tasks with their annotations and predictions, by number: changes while we read reorder nothing.

        since: only tasks whose `updated_at` is after this time (UTC, ISO 8601 with microseconds and Z). Every change
        of an annotation moves it: submits, updates, single and bulk deletions, annotations made from predictions. A
        change of the project's overlap does not, although it closes and reopens tasks.
        """
        query: dict[str, Any] = {"ordering": ["tasks:id"]}
        if since is not None:
            items = [{"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime", "value": since}]
            query["filters"] = {"conjunction": "and", "items": items}
        yield from self._task_pages(project_id, query)

    def newest_change(self, project_id: int) -> str | None:
        """The newest `updated_at` of the project's tasks; None without tasks."""
        query = json.dumps({"ordering": ["-tasks:updated_at"]})
        found = self._read(
            "/api/tasks", {"project": project_id, "fields": "task_only", "page": 1, "page_size": 1, "query": query}
        )["tasks"]
        return str(found[0]["updated_at"]) if found else None

    def tasks_by_id(self, project_id: int, ids: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
        """Pages of just these tasks, with their annotations, predictions and drafts."""
        for start in range(0, len(ids), PAGE):
            chosen = [int(task) for task in ids[start : start + PAGE]]
            yield from self._task_pages(project_id, {"selectedItems": {"all": False, "included": chosen}})

    def update_task(self, task_id: int, **fields: Any) -> bool:
        """Change fields of a task, six to eight a second; says whether it is still there."""
        try:
            self._call("PATCH", f"/api/tasks/{task_id}/", json=fields)
        except LabelStudioError as error:
            if error.status == 404:
                return False
            raise
        return True

    def add_annotation(self, task_id: int, result: list[dict[str, Any]]) -> int | None:
        """Annotate a task, also a closed one, as the token's user; returns the number, None where the task is gone."""
        try:
            return int(self._call("POST", f"/api/tasks/{task_id}/annotations/", json={"result": result})["id"])
        except LabelStudioError as error:
            if error.status == 404:
                return None
            raise

    def _task_pages(self, project_id: int, query: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
        page, seen = 1, 0
        parameters = {
            "project": project_id,
            "fields": "all",
            "resolve_uri": "false",
            "page_size": PAGE,
            "query": json.dumps(query, separators=(",", ":")),  # servers bound the length of an address
        }
        while True:
            try:
                answer = self._read("/api/tasks", parameters | {"page": page})
            except LabelStudioError as error:
                if page > 1 and error.status == 404:
                    return  # deletions while we read left no such page
                raise
            yield answer["tasks"]
            seen += len(answer["tasks"])
            if not answer["tasks"] or seen >= answer["total"]:
                return
            page += 1

    # predictions

    def import_predictions(self, project_id: int, predictions: Iterable[Mapping[str, Any]]) -> int:
        """Append predictions in one request (ten cost ten times one); returns how many were created."""
        body = list(predictions)
        answer = self._call("POST", f"/api/projects/{project_id}/import/predictions", json=body)
        return int(answer["created"])

    def update_prediction(self, prediction_id: int, **fields: Any) -> None:
        """Change fields of a prediction (`result`, `model_version`), some nine a second; the others stay."""
        self._call("PATCH", f"/api/predictions/{prediction_id}/", json=fields)

    def delete_prediction(self, prediction_id: int) -> None:
        """Delete one prediction. A submit that names it then fails."""
        self._call("DELETE", f"/api/predictions/{prediction_id}/")

    def delete_version(self, project_id: int, model_version: str) -> None:
        """Delete every prediction of that version. A submit that names one of them then fails."""
        self._call("DELETE", f"/api/projects/{project_id}/model-versions/", json={"model_version": model_version})

    def model_versions(self, project_id: int) -> dict[str, int]:
        """How many predictions each version has."""
        answer: dict[str, int] = self._read(f"/api/projects/{project_id}/model-versions/")
        return answer

    # Data Manager tabs

    def tabs(self, project_id: int) -> list[dict[str, Any]]:
        """The project's Data Manager tabs, from left to right: all users share them."""
        answer: list[dict[str, Any]] = self._read("/api/dm/views/", {"project": project_id})
        return answer

    def add_tab(self, project_id: int, data: Mapping[str, Any]) -> int:
        """Add a tab and return its number. A filter that the screen does not know breaks the page for everybody."""
        return int(self._call("POST", "/api/dm/views/", json={"project": project_id, "data": dict(data)})["id"])

    def delete_tab(self, tab_id: int) -> None:
        """Remove a tab; its tasks stay."""
        self._call("DELETE", f"/api/dm/views/{tab_id}/")

    # connections

    def ml_backends(self, project_id: int) -> list[dict[str, Any]]:
        """The project's ML backends (asking makes Label Studio call their /health and /setup)."""
        answer: list[dict[str, Any]] = self._read("/api/ml", {"project": project_id})
        return answer

    def add_ml_backend(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Connect an ML backend; Label Studio calls its /health and /setup before it answers."""
        answer: dict[str, Any] = self._call("POST", "/api/ml", json=dict(body))
        return answer

    def update_ml_backend(self, backend_id: int, body: Mapping[str, Any]) -> None:
        """Change an ML backend; `url` and `project` must be repeated. The path takes no trailing slash."""
        self._call("PATCH", f"/api/ml/{backend_id}", json=dict(body))

    def delete_ml_backend(self, backend_id: int) -> None:
        """Remove an ML backend. Its webhook stays; a project whose version is its title is left without one."""
        self._call("DELETE", f"/api/ml/{backend_id}")

    def webhooks(self, project_id: int) -> list[dict[str, Any]]:
        """The project's webhooks."""
        answer: list[dict[str, Any]] = self._read("/api/webhooks/", {"project": project_id})
        return answer

    def save_webhook(self, body: Mapping[str, Any], webhook_id: int | None = None) -> None:
        """Create the webhook, or change it where it exists."""
        if webhook_id is None:
            self._call("POST", "/api/webhooks/", json=dict(body))
        else:
            self._call("PATCH", f"/api/webhooks/{webhook_id}/", json=dict(body))

    def delete_webhook(self, webhook_id: int) -> None:
        """Remove a webhook."""
        self._call("DELETE", f"/api/webhooks/{webhook_id}/")
