"""Second Look as a model of the label-studio-ml package, for those who run that package's own server.

The same parts as our own server, behind the package's two hooks. `predict` looks up, `fit` only wakes the worker:
nothing is ever trained inside a request.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from label_studio_ml.model import LabelStudioMLBase

from backend import events, jobs
from backend.live import Live
from backend.payloads import is_task
from backend.settings import settings
from tasks.store import Store

log = structlog.get_logger()


class SecondLook(LabelStudioMLBase):
    """Under `init_app` of 1.0.9 the project's number comes with each task, since that server passes no other."""

    def __init__(self, label_config: str | None = None, train_output: Any = None, **kwargs: Any) -> None:
        super().__init__(label_config, train_output, **kwargs)  # type: ignore[no-untyped-call]
        chosen = settings()
        self.store = Store.open(chosen.database)
        self.live, self.bell = Live(self.store, chosen), jobs.Bell(chosen)

    def predict(self, tasks: Sequence[Mapping[str, Any]], **kwargs: Any) -> list[dict[str, Any]]:
        """One prediction {"result", "score", "model_version"} for each task, in their order; see `Live.predict`."""
        project_id = next((task["project"] for task in tasks if is_task(task) and "project" in task), None)
        if project_id is None or not self._registered(int(project_id)):
            return [{"result": [], "score": 0.0} for _ in tasks]
        answers = iter(self.live.predict(int(project_id), [task for task in tasks if is_task(task)]))
        return [next(answers) if is_task(task) else {"result": [], "score": 0.0} for task in tasks]

    def fit(self, event: str, data: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Hear an event of Label Studio; returns what was done about it."""
        project = data.get("project")
        project_id = project.get("id") if isinstance(project, dict) else project
        if not isinstance(project_id, int) or not events.concerns_us(event) or not self._registered(project_id):
            log.info("event ignored", event_name=event, project=project_id)
            return {"status": "ignored"}
        return events.hear(self.store, self.bell, project_id, event)

    def process_event(self, event: str, data: Mapping[str, Any], job_id: str, additional_params: Any) -> dict[str, Any]:
        """1.0.9 would drop START_TRAINING, and passes `fit` its arguments in a way that 2.x does not."""
        return self.fit(event, data)

    def _registered(self, project_id: int) -> bool:
        return self.store.project(project_id) is not None
