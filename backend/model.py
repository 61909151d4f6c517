"""Second Look as a model of the label-studio-ml package, for those who run that package's own server.

    from label_studio_ml.api import init_app
    app = init_app(model_class=SecondLook, model_dir="second-look-state/label-studio-ml")   # 1.0.9
    app = init_app(model_class=SecondLook)                                                  # 2.x

The same parts as our own server, behind the package's hooks, under 1.0.9 and 2.x alike. `predict` looks up, `fit` only
wakes the worker: nothing is ever trained inside a request. 2.x makes a model for every request, so the parts are the
process's. 1.0.9 keeps one model for all projects and does not tell it whose request it serves: there the number comes
with the tasks, and a project is known from its first event on, or by `second-look setup`. It asks for no password
either: let it listen on loopback alone.
"""

import inspect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import structlog
from label_studio_ml.model import LabelStudioMLBase

from backend import events, jobs
from backend.label_studio import admit
from backend.live import Live
from backend.payloads import BadPayload, check_parameters, is_task, read_created, read_project, read_setup
from backend.settings import settings
from tasks import identity
from tasks.queue import live_name
from tasks.schema import parse_label_config
from tasks.store import Store

log = structlog.get_logger()

NAMES_PROJECT = "project_id" in inspect.signature(LabelStudioMLBase.__init__).parameters  # 2.x


@lru_cache(maxsize=1)
def parts() -> tuple[Store, Live, jobs.Bell]:
    """The store, the answers and the bell of this process, as the settings name them."""
    chosen = settings()
    store = Store.open(chosen.database)
    return store, Live(store, chosen), jobs.Bell(chosen)


class SecondLook(LabelStudioMLBase):
    """project_id: Label Studio's number, also as "5.1795277263"; None under 1.0.9."""

    def __init__(self, project_id: str | int | None = None, label_config: str | None = None, **kwargs: Any) -> None:
        """Register the project where both are given, as /setup of 2.x does; raises SchemaError, OtherLabelStudio."""
        self.store, self.live, self.bell = parts()
        self.number = _number(project_id)
        if NAMES_PROJECT:
            super().__init__(project_id, label_config)  # type: ignore[no-untyped-call]
        else:
            super().__init__(label_config, **kwargs)  # type: ignore[no-untyped-call]
        if self.number is not None and label_config:
            self._register(self.number, label_config, read_created({"project": project_id}))

    @property
    def model_version(self) -> str:
        """The version of live answers."""
        project = None if self.number is None else self.store.project(self.number)
        return live_name(None if project is None else project.version)

    def get(self, key: str) -> Any:
        """What 2.x keeps under a key; its server asks for the model's version in this way."""
        return self.model_version if key == "model_version" else super().get(key)  # type: ignore[misc]

    def set_extra_params(self, extra_params: Any) -> None:
        """Keep the ML backend's extra parameters, as 2.x hands them over at /setup; raises BadPayload."""
        project = None if self.number is None else self.store.project(self.number)
        if project is None:
            return
        asked = read_setup({"project": project.id, "schema": project.label_config, "extra_params": extra_params})
        check_parameters(settings(), asked.extra_params)
        self.store.register_project(project.id, project.label_config, extra_params=asked.extra_params)

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """One prediction {"result", "score", "model_version"} for each task, in their order; see `Live.predict`."""
        number = self.number or next((_number(task.get("project")) for task in tasks if is_task(task)), None)
        project = None if number is None else self.store.project(number)
        if project is None:
            log.info("predict for an unknown project", project=number)
            return [{"result": [], "score": 0.0, "model_version": live_name(None)} for _ in tasks]
        answers = iter(self.live.predict(project.id, [task for task in tasks if is_task(task)]))
        abstained = {"result": [], "score": 0.0, "model_version": live_name(project.version)}
        return [next(answers) if is_task(task) else abstained for task in tasks]

    def fit(self, event: str, data: Mapping[str, Any], **additional_params: Any) -> dict[str, Any]:  # type: ignore[override]
        """Hear an event of Label Studio; returns what was done about it. Raises OtherLabelStudio."""
        project = data.get("project")
        number = _number(project)
        if number is not None and isinstance(project, Mapping) and project.get("label_config"):
            self._register(number, str(project["label_config"]), read_created({"project": project}))
        if number is None or not events.concerns_us(event) or self.store.project(number) is None:
            log.info("event ignored", event_name=event, project=number)
            return {"status": "ignored"}
        return events.hear(self.store, self.bell, number, event)

    def process_event(self, event: str, data: Mapping[str, Any], job_id: str, additional_params: Any) -> dict[str, Any]:
        """1.0.9 would drop START_TRAINING, and passes `fit` its arguments in a way that 2.x does not."""
        return self.fit(event, data)

    def _register(self, number: int, label_config: str, created: int | None) -> None:
        """created: when the project was made, in seconds since the epoch, where the call says so."""
        known = self.store.project(number)
        if known is not None and created is not None:
            identity.check(number, known.created_at, identity.text_of(created))
        fresh = known is None or known.connection == "none"
        dated = known is not None and (created is None or known.created_at is not None)
        if known is None or fresh or not dated or known.label_config != label_config:
            parse_label_config(label_config)
            born = admit(known, settings(), number, created)
            connection = "hand" if fresh else None
            self.store.register_project(number, label_config, created_at=born, connection=connection)


def _number(project: Any) -> int | None:
    try:
        return read_project({"project": project})
    except BadPayload:
        return None
