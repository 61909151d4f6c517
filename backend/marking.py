"""What a version's U-Nets make of every task: the regions they draw, and the figures that order and judge.

Out of fold as everything: a marked image is drawn by the member that saw neither it nor its group.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend import regions, scored
from backend.learning.backbone import Progress
from backend.marked import Marked
from backend.registry import Registry, load_arrays, save_arrays
from backend.segmentation.dice import dice, mean_dice
from backend.segmentation.drawing import Drawn, draw
from backend.segmentation.ensemble import Ensemble
from backend.settings import Settings
from backend.snapshot import Snapshot
from tasks import marks
from tasks.codec import Result
from tasks.mask_codec import encode_masks
from tasks.ranking.mask_errors import doubts
from tasks.schema import MaskHead, Schema

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """What the U-Nets make of N tasks, by the rows of a Snapshot, with C classes over all mask heads.

    uncertainty: (N,) in [0, 1]. quality: (N, C), of masks on record that nobody has reviewed; NaN where there are none.
    dice: (N, C) with what is marked, where it was reviewed; NaN where nothing is, or neither draws the class.
    """

    uncertainty: Floats
    quality: Floats
    dice: Floats

    def by_head(self, schema: Schema, among: "Seen | None" = None) -> dict[str, scored.Drawn]:
        """Per mask head the tasks' uncertainty, and the doubt of the class whose mask on record is doubted most.

        among: the tasks whose masks on record show what is usual; None: these.
        """
        doubt = np.nan_to_num(doubts(self.quality, None if among is None else among.quality))
        return {head.name: scored.Drawn(self.uncertainty, doubt[:, part].max(axis=1)) for head, part in _parts(schema)}

    def metrics(self, schema: Schema, held: NDArray[np.bool_], people: NDArray[np.bool_]) -> dict[str, dict[str, Any]]:
        """Per mask head how well the hold-out's masks are met: mean Dice, by class and over classes.

        held, people: (N,), the hold-out, and what people marked.
        """
        found = {}
        for head, part in _parts(schema):
            each = mean_dice(self.dice[held, part].astype(float))
            known = held & ~np.isnan(self.dice[:, part]).all(axis=1)
            found[head.name] = {
                "n": int(known.sum()),
                "adjudicated": int((known & people).sum()),
                "dice": None if np.isnan(each).all() else float(np.nanmean(each)),
                "classes": {
                    name: None if np.isnan(value) else float(value)
                    for name, value in zip(head.classes, each, strict=True)
                },
            }
        return found

    def save(self, path: Path) -> None:
        """Write it as one file."""
        save_arrays(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> "Seen":
        """Read what save wrote."""
        return cls(**load_arrays(path))


def see(
    folder: Path,
    registry: Registry,
    schema: Schema,
    taken: Snapshot,
    marked: Marked,
    found: Ensemble,
    settings: Settings,
    progress: Progress,
) -> Seen:
    """Draw every task of a snapshot, and keep its regions in the version's folder, where a resumed run finds them."""
    rows = []
    for row, (task, pixels) in enumerate(zip(taken.ids.tolist(), taken.pixels.tolist(), strict=True)):
        told = regions.figures(folder, task, pixels)
        if told is None:
            image = np.load(registry.whole(pixels), mmap_mode="r")
            digest = str(marked.painted[row])
            painted = np.load(registry.painted(digest)) if digest else None
            unseen = found.unseen(int(taken.folds[row]), labelled=painted is not None)
            record = None if painted is None or marked.people[row] else (painted[:-1], painted[-1])
            one = draw(
                unseen,
                found.temperatures,
                image,
                settings.pixel_uncertainty,
                settings.segmentation.tile,
                settings.patches,
                settings.patch_size,
                record,
            )
            told = {
                "uncertainty": one.uncertainty,
                "quality": one.quality.tolist(),
                "dice": _dice(one, painted).tolist(),
            }
            regions.keep(folder, task, pixels, _results(schema, one), told, one.map)
        rows.append(told)
        progress(row + 1, len(taken.ids))
    shape = (len(rows), len(marks.planes(schema)))
    return Seen(
        np.array([told["uncertainty"] for told in rows], dtype=np.float32),
        np.array([told["quality"] for told in rows], dtype=np.float32).reshape(shape),
        np.array([told["dice"] for told in rows], dtype=np.float32).reshape(shape),
    )


def _dice(one: Drawn, painted: NDArray[np.uint8] | None) -> Floats:
    if painted is None:
        return np.full(len(one.masks), np.nan, dtype=np.float32)
    return dice(one.masks, painted[:-1], painted[-1]).astype(np.float32)


def _results(schema: Schema, one: Drawn) -> list[Result]:
    height, width = one.masks.shape[1:]
    masks = {head.name: one.masks[part] for head, part in _parts(schema)}
    scores = {head.name: one.confidence[part].tolist() for head, part in _parts(schema)}
    return encode_masks(schema, height, width, masks, scores, one.patches)


def _parts(schema: Schema) -> list[tuple[MaskHead, slice]]:
    """Where the classes of each mask head lie among all."""
    ends = np.cumsum([len(head.classes) for head in schema.masks]).tolist()
    return [(head, slice(end - len(head.classes), end)) for head, end in zip(schema.masks, ends, strict=True)]
