"""All that the report says, as plain values: the page shows these, and `second-look report --json` prints them."""

from datetime import UTC, datetime
from typing import Any

from backend import evidence, kept_heads
from backend.registry import Registry
from backend.report import annotators, cases, centres, dice, limits, masks, models, reviews, stopping
from backend.report.material import Material, read
from backend.settings import Settings
from backend.weights_in_words import sentences
from tasks import queue
from tasks.store import Store


def gather(store: Store, settings: Settings, project_id: int) -> dict[str, Any]:
    """The facts of one project; what is not known is None or empty. Raises NoResultFound for an unknown project."""
    registry = Registry(settings.state_dir)
    material = read(store, registry, project_id)
    tuned = settings.tuned(material.project.extra_params)
    people = {row.task_id for row in material.annotations if row.origin == "person"}
    ends = models.before_and_after(material)
    return {
        "project": project_id,
        "title": material.project.title,
        "created_at": material.project.created_at,
        "made_at": datetime.now(UTC).isoformat(timespec="minutes"),
        "control": None if material.head is None else material.head.name,
        "positive": None if material.head is None else material.head.positive,
        "version": material.project.version,
        "alarms": list(material.project.alarms),
        "limits": limits.limits(material),
        "tasks": len(material.items),
        "open": sum(not item.is_labeled for item in material.items),
        "reviewed": sum(item.id in people for item in material.items),
        "for_the_expert": sum(item.settled.flagged for item in material.items),
        "holdout": len(material.holdout),
        "evidence": evidence.of_project(material),
        "days": reviews.by_day(material),
        "found": reviews.found(material),
        "changes": reviews.changes(material),
        "suspects": reviews.doubted(material, tuned.disagreement_threshold),
        "weighing": sentences(next((v.metrics for v in material.versions if v.number == material.project.version), {})),
        "annotators": annotators.annotators(material, tuned.daily_limit),
        "agreement": annotators.agreement(material),
        "versions": models.history(material),
        "curve": models.curve(material),
        "before_and_after": ends,
        "reliability": models.reliability(material),
        "centres": centres.per_centre(material),
        "masks": _masks(material),
        "stopping": stopping.advice(material, tuned, queue.open_head(store, project_id)),
        "forecasts": stopping.past(material),
        "ledger": kept_heads.as_json(material.ledger),
    }


def _masks(material: Material) -> dict[str, Any] | None:
    found = masks.summary(material)
    if found is None:
        return None
    drawings = dice.Drawings(material)
    return found | {
        "before_and_after": dice.before_and_after(drawings),
        "curve": dice.curve(drawings),
        "worst": cases.pictured(drawings),
        "colours": cases.colours(material.schema),
    }
