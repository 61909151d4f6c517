"""Checks of the project's label config and images: whether there is something to learn, and to learn it from."""

from collections.abc import Iterator

from backend.doctor.findings import Fault, NotObserved, error, known, warning
from backend.doctor.observed import ProjectFacts
from tasks.schema import Schema, SchemaError, parse_label_config

MANY = 0.2  # share of unusable images that is no accident


def _schema(seen: ProjectFacts) -> Schema:
    try:
        return parse_label_config(known(seen.remote)["label_config"])
    except SchemaError as fault:
        raise NotObserved(f"the label config cannot be used: {fault}") from fault


def label_config(seen: ProjectFacts) -> Iterator[Fault]:
    """The label config has something to learn."""
    try:
        parse_label_config(known(seen.remote)["label_config"])
    except SchemaError as fault:
        yield error(f"the label config cannot be used: {fault}", "change it in Settings, Labeling Interface")


def left_alone(seen: ProjectFacts) -> Iterator[Fault]:
    """Every control is learnt, or has a model_role."""
    for sentence in _schema(seen).left_alone:
        yield warning(sentence, 'nothing, if that is meant: model_role="note" on a text control says so')


def required(seen: ProjectFacts) -> Iterator[Fault]:
    """Learnt controls are required: otherwise Ctrl+Enter submits an empty result, which teaches nothing."""
    names = [head.name for head in _schema(seen).heads if not head.required]
    if names:
        yield warning(
            f"{', '.join(map(repr, names))} may be left empty: Ctrl+Enter submits without a warning, and what lies"
            " below the fold gets submitted unseen",
            'add required="true" to each in Settings, Labeling Interface',
        )


def why(seen: ProjectFacts) -> Iterator[Fault]:
    """The label config has a control that tells annotators why they see a task."""
    schema = _schema(seen)
    if "why" not in schema.roles:
        yield warning(
            "annotators are not told why they see a task",
            f'add <TextArea name="why" toName="{schema.image_name}" model_role="why" editable="false"'
            ' maxSubmissions="1"/> in Settings, Labeling Interface',
        )


def images(seen: ProjectFacts) -> Iterator[Fault]:
    """The images can be read."""
    stored = known(seen.stored)
    if stored.images_broken:
        few = "; ".join(f"task {task}: {reason}" for task, reason in stored.images_failed)
        make = error if stored.images_broken > MANY * stored.tasks else warning
        yield make(
            f"{stored.images_broken} of {stored.tasks} images cannot be used, so these tasks are never served: {few}",
            "mend the addresses or files that are named; second-look status names more. Where all fail, register the"
            " storage in Settings, Cloud Storage, and see that the token's user can open a task there",
        )
