"""Prometheus metrics: what the store says at the moment of the scrape, and what this server's requests took.

Gauges are read from the store, so that every gunicorn worker answers the same. Requests are counted in memory:
of one process, or, where PROMETHEUS_MULTIPROC_DIR names a folder that is empty when gunicorn starts, of all of
them together. Without that folder several processes would each tell of themselves alone.
"""

import os
from collections.abc import Iterator

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from backend import jobs, schedule
from backend.settings import Settings
from tasks import queue
from tasks.store import Store
from tasks.tables import Annotation, Job, Project, Task

# Label Studio gives /health 1 s, /setup 3 s and /predict 100 s, and cuts a webhook after 1 s.
SECONDS = (0.005, 0.02, 0.1, 0.5, 1.0, 3.0, 10.0, 30.0, 100.0)


class StoreCollector(Collector):
    """Gauges of every project, read from the store when they are asked for."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store

    def collect(self) -> Iterator[Metric]:
        """The gauges; raises SQLAlchemy's errors where the store cannot be read."""
        with self.store.begin() as session:
            projects = session.scalars(select(Project).order_by(Project.id)).all()
            tasks = session.execute(
                select(Task.project_id, func.count(), func.count(Task.image_error))
                .where(Task.deleted_at.is_(None))
                .group_by(Task.project_id)
            ).all()
            annotations = session.execute(
                select(Annotation.project_id, Annotation.origin, func.count())
                .where(Annotation.deleted_at.is_(None))
                .group_by(Annotation.project_id, Annotation.origin)
            ).all()
            states = session.execute(
                select(Job.project_id, Job.kind, Job.state, func.count()).group_by(Job.project_id, Job.kind, Job.state)
            ).all()
            until_training = {
                p.id: schedule.threshold(session, self.settings.tuned(p.extra_params), p.id)
                - schedule.pending(session, p.id)
                for p in projects
            }

        yield _gauge("tasks", "Tasks in Label Studio", ["project"], [((p,), n) for p, n, _ in tasks])
        yield _gauge("images_failed", "Tasks whose image cannot be used", ["project"], [((p,), n) for p, _, n in tasks])
        yield _gauge(
            "annotations",
            "Annotations by who made them; only those of persons count and train",
            ["project", "origin"],
            [((p, origin), n) for p, origin, n in annotations],
        )
        yield _gauge(
            "labels_until_training",
            "New or changed annotations until the next training",
            ["project"],
            [((p,), max(n, 0)) for p, n in until_training.items()],
        )
        yield _gauge(
            "model_version", "Model in force; 0: none yet", ["project"], [((p.id,), p.version or 0) for p in projects]
        )
        yield _gauge(
            "published_version",
            "Version whose predictions order the queue; 0: none yet",
            ["project"],
            [((p.id,), p.published or 0) for p in projects],
        )
        yield _gauge(
            "queue_remaining",
            "Open tasks of the published order",
            ["project"],
            [((p.id,), len(queue.open_head(self.store, p.id))) for p in projects],
        )
        yield _gauge(
            "alarms", "Sentences waiting for an admin", ["project"], [((p.id,), len(p.alarms)) for p in projects]
        )
        yield _gauge(
            "jobs",
            "Background jobs by state",
            ["project", "kind", "state"],
            [((p, kind, state), n) for p, kind, state, n in states],
        )
        yield _gauge("workers", "Workers that gave a sign of life lately", [], [((), len(jobs.workers(self.store)))])


class Telemetry:
    """The registry of one application."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, settings: Settings, store: Store) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(StoreCollector(settings, store))
        together = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        if together:
            MultiProcessCollector(self.registry)  # type: ignore[no-untyped-call]
        own = None if together else self.registry
        self.requests = Counter("second_look_requests", "Requests answered", ["endpoint", "status"], registry=own)
        self.seconds = Histogram(
            "second_look_request_seconds", "Time to answer", ["endpoint"], buckets=SECONDS, registry=own
        )

    def observe(self, endpoint: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests.labels(endpoint, str(status)).inc()
        self.seconds.labels(endpoint).observe(seconds)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


def _gauge(
    name: str, meaning: str, labels: list[str], samples: list[tuple[tuple[object, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"second_look_{name}", meaning, labels=labels)
    for values, number in samples:
        family.add_metric([str(value) for value in values], number)
    return family
