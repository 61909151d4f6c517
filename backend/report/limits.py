"""What a project cannot tell, and why: too little marked, a hold-out without positives, no centres, no patients."""

from collections.abc import Sequence

import numpy as np

from backend.learning.folds import HOLDOUT
from backend.marked import MIN_MARKED
from backend.report.material import Item, Material
from backend.snapshot import MIN_LABELS, NO_FOLD, learnable
from tasks.schema import Head


def limits(material: Material) -> list[str]:
    """A sentence for each thing that is missing, and what follows from it; empty where nothing is."""
    if not material.items:
        return ["The project has no tasks yet: import some in Label Studio."]
    if all(item.pixels is None for item in material.items):
        return [
            f"None of the {len(material.items)} images could be read yet: second-look status names those that failed."
        ]
    return [*_not_learnt(material), *_holdout(material), *_unknown(material)]


def _not_learnt(material: Material) -> list[str]:
    """Of every control that the model in force does not answer."""
    if material.project.probabilities is not None:
        return []
    in_force = next((row for row in material.versions if row.number == material.project.version), None)
    rows = [item for item in material.items if item.pixels is not None and item.fold != HOLDOUT]
    unlearnt = [head for head in material.schema.heads if in_force is None or head.name not in in_force.metrics]
    reasons = {head.name: _too_little(material, head, rows) for head in unlearnt}
    if in_force is None or not any(head.name in in_force.metrics for head in material.schema.masks):
        reasons |= {head.name: _too_few_marked(rows) for head in material.schema.masks}
    return [f"Nothing is learnt of {name} yet: {said}." for name, said in reasons.items() if said is not None]


def _too_little(material: Material, head: Head, rows: Sequence[Item]) -> str | None:
    """Why a control cannot be learnt from these tasks; None where it can."""
    targets = material.targets(head, [item.settled.labels for item in rows])
    given = targets[~np.isnan(targets).any(axis=1)]
    folds = np.array([NO_FOLD if item.fold is None else item.fold for item in rows], dtype=np.int8)
    if not len(given):
        return "no task carries a label of it"
    if len(given) < MIN_LABELS:
        return f"it takes {MIN_LABELS} labelled tasks outside the hold-out, and {len(given)} are there"
    if len(np.unique(given, axis=0)) > 1:
        few = (folds != NO_FOLD).all() and not learnable(targets, folds)
        return "its labels come from too few patients to try a model on others" if few else None
    only = ", ".join(name for name, ticked in zip(head.classes, given[0].tolist(), strict=True) if ticked)
    return f"all {len(given)} labels outside the hold-out say {only or 'that nothing is ticked'}"


def _too_few_marked(rows: Sequence[Item]) -> str | None:
    """Why masks cannot be learnt from what is marked in these tasks; None where they can."""
    folds = [item.fold for item in rows if item.marks.recorded or item.marks.by_people]
    if len(folds) < MIN_MARKED:
        return f"it takes {MIN_MARKED} marked images outside the hold-out, and {len(folds)} are there"
    few = None not in folds and len(set(folds)) == 1
    return "its marked images come from too few patients to try a model on others" if few else None


def _holdout(material: Material) -> list[str]:
    """Of the masks and the heaviest control, once tasks have folds."""
    held = material.holdout
    if all(item.fold is None for item in material.items):
        return []
    if not held:
        return ["There is no hold-out, as there are too few patients: no figure of a model can be told."]
    found = []
    if material.schema.masks and not any(item.marks.recorded or item.marks.by_people for item in held):
        found.append("No image of the hold-out is marked: no Dice of a model can be told.")
    return found if material.head is None else [*found, *_holdout_of(material, material.head, held)]


def _holdout_of(material: Material, head: Head, held: Sequence[Item]) -> list[str]:
    targets = material.targets(head, [item.settled.labels for item in held])
    given = targets[~np.isnan(targets).any(axis=1)]
    if not len(given):
        return [f"No task of the hold-out carries a label of {head.name}: no figure of a model can be told."]
    if head.positive is None:
        return []
    positive = given[:, head.classes.index(head.positive)] > 0
    if not positive.any():
        return [f"The hold-out holds no {head.positive}: AUC and sensitivity cannot be told."]
    if positive.all():
        return [f"The hold-out holds nothing but {head.positive}: AUC and specificity cannot be told."]
    return []


def _unknown(material: Material) -> list[str]:
    """Of centres and patients: without them each image counts as a patient of its own."""
    found, schema = [], material.schema
    if schema.site_field is None:
        found.append("No centres are known: model_site in the label config names none.")
    elif all(item.site is None for item in material.items):
        found.append(f"No centres are known: model_site names the field {schema.site_field}, which no task fills.")
    told = "images of one patient may lie both in training and in the hold-out, whose figures then flatter"
    if schema.group_field is None:
        found.append(f"No patients are known, as model_group in the label config names none: {told}.")
    elif all(item.group is None or item.group == f"image:{item.pixels}" for item in material.items):
        found.append(f"No patients are known, as no task fills {schema.group_field}, which model_group names: {told}.")
    return found
