"""Whether enough is reviewed, read from the store: for `status`, and for the worker where stopping is automatic."""

from typing import Any

from backend.registry import Registry
from backend.report import stopping
from backend.report.material import read
from backend.settings import Settings
from tasks import queue
from tasks.store import Store


def of_project(store: Store, registry: Registry, settings: Settings, project_id: int) -> dict[str, Any] | None:
    """As `report.stopping.advice`; None before any model. Raises NoResultFound for a project that is not known.

    It reads every task and the files of some versions: seconds where tasks are many.
    """
    material = read(store, registry, project_id)
    tuned = settings.tuned(material.project.extra_params)
    return stopping.advice(material, tuned, queue.open_head(store, project_id))
