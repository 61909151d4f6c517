"""The reviewed cases most like a task: found by their embeddings, and drawn as HTML with their pictures and labels.

The HTML is shown inside Label Studio's own page, to people who are logged in there: pictures are named by Label
Studio's addresses, which it serves to them and to nobody else, and which do not expire.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from tasks.images import STORAGE_SCHEMES
from tasks.schema import Schema
from tasks.why import Case, Phrases, case_label

MOST = 3
"""Cases a task: more do not fit beside each other."""
MARK = '<div class="sl-similar"'
"""How the HTML begins, by which a task field's value is known to be ours."""

BLOCK = 256  # rows compared at a time: 120,000 reviewed cases are then 120 MB


def most_similar(points: NDArray[np.float32], reviewed: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """For each row the indices of its nearest reviewed rows by cosine, nearest first, equal ones in their order.

    points: (N, D). reviewed: (R, D). Returns (N, min(count, R)).
    """
    count = min(count, len(reviewed))
    against = _unit(reviewed)
    found = np.zeros((len(points), count), dtype=np.intp)
    for start in range(0, len(points), BLOCK) if count else ():
        cosine = _unit(points[start : start + BLOCK]) @ against.T
        for row, values in enumerate(cosine, start):
            least = np.partition(values, -count)[-count]
            best = np.flatnonzero(values >= least)
            found[row] = best[np.argsort(-values[best], kind="stable")][:count]
    return found


def to_html(schema: Schema, cases: Sequence[Case], pictures: Mapping[int, str], phrases: Phrases) -> str:
    """The cases beside each other, each with its picture, its number and its labels, the heaviest head's first.

    pictures: by task, the address as the browser is to ask for it; a case without one is shown by its labels alone.
    Labels and addresses are escaped. Without cases empty, which Label Studio shows as nothing.
    """
    if not cases:
        return ""
    figures = "".join(_figure(schema, task, labels, pictures.get(task), phrases) for task, labels in cases)
    return (
        f'{MARK}><div style="font-size:13px;margin-bottom:4px">{escape(phrases.similar_cases)}</div>'
        f'<div style="display:flex;gap:8px">{figures}</div></div>'
    )


def address(image: str, task: int, below: str = "") -> str | None:
    """Where a browser that is logged in to Label Studio finds a task's image; None: nowhere that could be named.

    image: the address that the task has. below: the path below which Label Studio is served, without a slash at its
    end. Objects of connected storages are named as Label Studio names them on its screen: it signs a link, or hands
    the object out itself, whenever it is asked.
    """
    image = image.strip()
    scheme = image.partition("://")[0].lower()
    if scheme in STORAGE_SCHEMES and "://" in image:
        image = f"/tasks/{task}/resolve/?fileuri={base64.urlsafe_b64encode(image.encode()).decode()}"
    if image.startswith("/") and not image.startswith("//"):
        return image if image.startswith(f"{below}/") else f"{below}{image}"
    return image if scheme in ("http", "https") and "://" in image else None


def _figure(
    schema: Schema, task: int, labels: Mapping[str, Sequence[str]], picture: str | None, phrases: Phrases
) -> str:
    heads = sorted(schema.heads, key=lambda head: -head.weight)
    first, *others = [
        case_label(head, tuple(labels[head.name]), phrases) for head in heads if labels.get(head.name)
    ] or [""]
    caption = escape(phrases.similar_case.format(task=task, label=first).strip())
    image = (
        f'<img src="{escape(picture)}" alt="{caption}"'
        ' style="display:block;width:100%;height:128px;object-fit:contain;background:#000"/>'
        if picture is not None
        else ""
    )
    return (
        f'<figure style="flex:1 1 0;min-width:0;margin:0">{image}'
        f'<figcaption style="font-size:12px;line-height:15px"><b>{caption}</b><br/>'
        f"{escape(phrases.between_labels.join(others))}</figcaption></figure>"
    )


def _unit(points: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    return unit
