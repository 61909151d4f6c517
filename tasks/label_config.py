"""The XML of a label config: its tags, their choices and attributes, and which of them can be learnt."""

from collections import Counter
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.parsers.expat import ErrorString

MASKS = ("brushlabels", "polygonlabels")
_SHAPES = ("bitmask", "brush", "ellipse", "keypoint", "polygon", "rectangle", "vector")
_REGION_TAGS = frozenset(["labels", "magicwand", *_SHAPES, *(f"{shape}labels" for shape in _SHAPES)])


class SchemaError(ValueError):
    """The label config cannot be learnt from; the message says to a project admin what to change."""


class Answers(NamedTuple):
    """What a Choices or Rating can be answered with, or a region be labelled with.

    classes: as Label Studio stores them; shown: as the annotator reads them; hidden: nested ones that Label Studio
    neither shows nor stores.
    """

    classes: tuple[str, ...]
    shown: tuple[str, ...]
    hidden: tuple[str, ...]


class _NoDoctype(ElementTree.TreeBuilder):
    """Stops at a DOCTYPE, before any entity in it is defined: entities could expand to gigabytes."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise SchemaError("The label config holds a DOCTYPE, which is refused: remove the <!DOCTYPE ...> part.")


def read_xml(xml: str) -> Element:
    """The root tag. Raises SchemaError for XML that does not parse (with line), a DOCTYPE, and names used twice."""
    try:
        root = ElementTree.fromstring(xml, parser=ElementTree.XMLParser(target=_NoDoctype()))
    except ElementTree.ParseError as error:
        line, column = error.position
        raise SchemaError(
            f"The label config is not valid XML at line {line}, column {column + 1}: {ErrorString(error.code)}."
        ) from error
    except UnicodeEncodeError as error:
        raise SchemaError(f"The label config holds a character that XML does not allow: {error}.") from error
    names = Counter(tag.get("name") for tag in root.iter() if tag.get("name"))
    for name, count in names.items():
        if count > 1:
            raise SchemaError(f"The label config uses the name {name!r} {count} times: give every tag its own name.")
    return root


def kind(tag: Element) -> str:
    """The tag's name in lower case: the labelling screen reads tags without regard to case."""
    return tag.tag.lower()


def is_control(tag: Element) -> bool:
    """Whether the tag asks for an answer, as Label Studio decides it: by `name` and `toName`."""
    return bool(tag.get("name") and tag.get("toName")) and kind(tag) != "filter"


def is_true(tag: Element, attribute: str) -> bool:
    """A true or false attribute, false where absent. Raises SchemaError where one of ours is neither."""
    text = tag.get(attribute, "false").strip().lower()
    if text not in ("true", "false") and attribute.startswith("model_"):
        raise SchemaError(f"{tag.get('name')!r} has {attribute}={text!r}: use true or false.")
    return text == "true"


def task_field(tag: Element, attribute: str) -> str | None:
    """The task data field an attribute names, written with or without Label Studio's `$`."""
    return tag.get(attribute, "").strip().removeprefix("$") or None


def inside_repeaters(root: Element) -> set[Element]:
    """All tags that a Repeater repeats."""
    return {tag for repeater in root.iter() if kind(repeater) == "repeater" for tag in repeater.iter()}


def why_not_learnt(tag: Element, repeated: bool) -> str | None:
    """Why a control cannot be a head, whatever image it points to; None where it can."""
    if kind(tag) in _REGION_TAGS and kind(tag) not in MASKS:
        return "it marks regions of the image, of which only those of BrushLabels and PolygonLabels are learnt"
    if kind(tag) not in ("choices", "rating", *MASKS):
        return f"{tag.tag} is not learnt, only Choices, Rating, BrushLabels and PolygonLabels are"
    if is_true(tag, "perRegion"):
        return 'it is answered per region (perRegion="true")'
    if is_true(tag, "perItem"):
        return 'it is answered per item of a list (perItem="true")'
    if repeated:
        return "it is repeated by a Repeater, a different number of times in each task"
    if kind(tag) != "rating" and (tag.get("apiUrl") or tag.get("value", "").startswith("$")):
        return f"its classes come from {tag.get('apiUrl') or tag.get('value')}, so they differ between tasks"
    if kind(tag) == "choices" and is_true(tag, "allowNested"):
        return 'its answers are paths (allowNested="true"), which Label Studio refuses in predictions'
    return None


def answers_of(tag: Element) -> Answers:
    """The choices of Choices, the stars of Rating, the labels of region tags such as BrushLabels.

    Raises SchemaError for nameless and repeated ones.
    """
    if kind(tag) == "rating":
        stars = tuple(str(star) for star in range(1, _max_rating(tag) + 1))
        return Answers(stars, stars, ())
    part = "choice" if kind(tag) == "choices" else "label"
    shown: dict[str, str] = {}
    hidden: list[str] = []
    waiting = [(child, False) for child in reversed(tag)]
    while waiting:
        element, nested = waiting.pop()
        is_part = kind(element) == part
        waiting += [(child, nested or is_part) for child in reversed(element)]
        if not is_part:
            continue
        name = element.get("alias") or element.get("value")
        if not name:
            raise SchemaError(f"A {part.title()} of {tag.get('name')!r} has neither value nor alias: give it a value.")
        if nested:
            hidden.append(name)
        elif name in shown:
            raise SchemaError(f"{tag.get('name')!r} lists the class {name!r} twice: keep one.")
        else:
            shown[name] = element.get("value") or name
    return Answers(tuple(shown), tuple(shown.values()), tuple(hidden))


def _max_rating(tag: Element) -> int:
    text = tag.get("maxRating", "5")
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:4]) <= 100):
        raise SchemaError(f"Rating {tag.get('name')!r} has maxRating={text!r}: use a whole number from 1 to 100.")
    return int(text)


def find_image(root: Element, candidates: list[Element]) -> Element:
    """The Image tag that the controls to learn point to, or the only one. Raises SchemaError: none, or unclear."""
    images = {tag.get("name"): tag for tag in root.iter() if kind(tag) == "image" and tag.get("name")}
    if not images:
        raise SchemaError('The label config has no Image tag with a name: add <Image name="image" value="$image"/>.')
    used: dict[str | None, list[str]] = {}
    for tag in candidates:
        if tag.get("toName") in images:
            used.setdefault(tag.get("toName"), []).append(tag.get("name", ""))
    if len(used) > 1:
        listed = "; ".join(f"{', '.join(names)} to {image!r}" for image, names in used.items())
        raise SchemaError(
            f"The controls to learn point to different images ({listed}), and one image per task is learnt: "
            f"point them all to the same Image tag, or give those of the other a model_role."
        )
    if not used and len(images) > 1:
        raise SchemaError(
            f"The label config has several Image tags ({', '.join(map(repr, images))}) and no control to learn "
            f"that points to one of them: set toName on the controls to learn."
        )
    return images[next(iter(used or images))]


def image_field(image: Element) -> str:
    """The task data field with the picture. Raises SchemaError where the tag names none."""
    value = image.get("value", "")
    if not value.startswith("$") or len(value) < 2:
        source = value or image.get("valueList") or "nowhere"
        raise SchemaError(
            f"Image {image.get('name')!r} takes its picture from {source!r}: name one task field, such as "
            f'value="$image".'
        )
    return value[1:]
