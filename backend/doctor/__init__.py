"""What would break the loop, and how to mend it: facts first, then every check on its own.

Nothing is changed in Label Studio: no lock is taken, nothing is created.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from backend.doctor import connections, labelling, machine, order, running, server
from backend.doctor.findings import Check, Finding, carry_out
from backend.doctor.gather import gather
from backend.settings import Settings

BACKEND_CHECKS: Mapping[str, Check] = {
    "store": running.store,
    "label-studio-address": server.address,
    "token": server.token,
    "ml-address-blocked": server.ml_address_blocked,
    "webhook-address-blocked": server.webhook_address_blocked,
    "task-lock": server.task_lock,
    "worker": running.worker,
    "gpu": machine.gpu,
    "weights": machine.weights,
    "disk": machine.disk,
}
PROJECT_CHECKS: Mapping[str, Check] = {
    "project": connections.project,
    "ml-backend": connections.ml_backend,
    "half-connected": connections.half_connected,
    "orphan-ml-backend": connections.orphan_ml_backends,
    "webhook": connections.webhook,
    "orphan-webhook": connections.orphan_webhooks,
    "extra-parameters": running.extra_parameters,
    "sampling": order.sampling,
    "title": connections.title,
    "model-version": order.model_version,
    "published": order.published,
    "predictions": order.predictions,
    "predictions-shown": order.predictions_shown,
    "head": order.head,
    "served-order": order.served_order,
    "served-outside": order.served_outside,
    "overlap": order.overlap,
    "reconcile": running.reconcile,
    "job": running.job,
    "alarms": running.alarms,
    "bulk-import": server.bulk_import,
    "database": server.database,
    "label-config": labelling.label_config,
    "left-alone": labelling.left_alone,
    "required": labelling.required,
    "why": labelling.why,
    "images": labelling.images,
}
CHECKS = (*BACKEND_CHECKS, *PROJECT_CHECKS)


@dataclass(frozen=True)
class Examination:
    """What was examined, and every finding: the backend's before those of its projects."""

    checks: tuple[str, ...]
    findings: list[Finding]

    @property
    def passed(self) -> list[str]:
        """The checks without a finding."""
        found = {finding.check for finding in self.findings}
        return [name for name in self.checks if name not in found]


def examine(settings: Settings, project: int | None = None) -> Examination:
    """Examine the backend and all its projects, or the one that is named."""
    facts, projects = gather(settings, project)
    findings = list(carry_out(BACKEND_CHECKS, facts, None))
    for seen in projects:
        findings += carry_out(PROJECT_CHECKS, seen, seen.id)
    return Examination(CHECKS if projects else tuple(BACKEND_CHECKS), findings)
