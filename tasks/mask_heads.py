"""The controls of a label config whose regions are learnt as masks, and the roles that speak of parts of the image."""

from dataclasses import dataclass
from typing import Literal
from xml.etree.ElementTree import Element

from tasks.label_config import Answers, SchemaError, kind

MaskKind = Literal["brush", "polygon"]

Scope = Literal["patches", "image"]
SCOPES: tuple[Scope, ...] = ("patches", "image")
"""What a `scope` control's Choices are called (alias, or value): reviewed were the rectangles, or the whole image."""


@dataclass(frozen=True)
class MaskHead:
    """One BrushLabels or PolygonLabels control.

    name: the control's name, `from_name` in results. classes: what Label Studio stores for each Label, which is its
    alias, else its value; a pixel may belong to several, or to none. weight: share of the loss; all mask heads' weights
    sum to 1, beside those of the other heads, which another model learns. shown: what the annotator reads for each
    class.
    """

    name: str
    to_name: str
    kind: MaskKind
    classes: tuple[str, ...]
    weight: float
    shown: tuple[str, ...] = ()


def mask_head(tag: Element, answers: Answers, weight: float) -> MaskHead:
    """The head of a BrushLabels or PolygonLabels tag."""
    return MaskHead(
        name=tag.get("name", ""),
        to_name=tag.get("toName", ""),
        kind="brush" if kind(tag) == "brushlabels" else "polygon",
        classes=answers.classes,
        weight=weight,
        shown=answers.shown,
    )


def check_scope(name: str, classes: tuple[str, ...], look: bool) -> None:
    """Raises SchemaError where a `scope` control has other Choices than SCOPES, or speaks of rectangles that are not.

    look: whether there is a control to draw rectangles with.
    """
    if not classes or not set(classes) <= set(SCOPES):
        raise SchemaError(
            f"{name!r} has model_role='scope' and the Choices {', '.join(map(repr, classes)) or 'none'}: use "
            f'alias="patches" for the rectangles alone, and alias="image" for the whole image.'
        )
    if "patches" in classes and not look:
        raise SchemaError(
            f"{name!r} asks for the rectangles that were reviewed, and there are none to draw: add a RectangleLabels "
            f'with model_role="look", or remove the Choice "patches".'
        )
