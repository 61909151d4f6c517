"""An acquisition function of one's own: a pure function over arrays, named `module:function`, in the hybrid's place.

docs/acquisition.md says how to write one.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.registry import load_json, save_json
from tasks.schema import Head

Floats = NDArray[np.float32]


class AcquisitionError(ValueError):
    """The function cannot be imported, failed, or gave no scores; the message names it and says why."""


@dataclass(frozen=True)
class Pool:
    """The N open tasks among which the next `count` are chosen; hold-out tasks are not among them.

    heads: the learnt controls, with their classes and weights.
    ids: int64 (N,), Label Studio's numbers.
    members: by head name float32 (M, N, C), calibrated probabilities of each member of the ensemble. Labelled tasks
        have fewer members than others, those that did not see them: the missing ones are NaN, the first never is.
    probabilities: by head name float32 (N, C), their mean.
    recorded: by head name float32 (N, C), the label to be checked, one-hot or multi-hot; NaN rows without one.
    uncertainty, disagreement: float32 (N,) in [0, 1], weighted over heads, as the hybrid score takes them.
    embeddings: float32 (N, D), what the images look like; D is 0 without a backbone (imported probabilities).
    reference: float32 (R, D), embeddings of the tasks that are reviewed or published already.
    """

    heads: tuple[Head, ...]
    ids: NDArray[np.int64]
    members: Mapping[str, Floats]
    probabilities: Mapping[str, Floats]
    recorded: Mapping[str, Floats]
    uncertainty: Floats
    disagreement: Floats
    embeddings: Floats
    reference: Floats
    count: int


def load(name: str) -> Callable[[Pool], Any]:
    """The function `module:function`, installed or in the working directory. Raises AcquisitionError."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise AcquisitionError(f"acquisition {name!r}: write it as module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, so that a file there never stands in for an installed package
    try:
        found = getattr(importlib.import_module(module), function)
    except AttributeError as error:
        raise AcquisitionError(f"acquisition {name!r}: the module has no {function!r}") from error
    except Exception as error:  # importing runs somebody else's code
        raise AcquisitionError(f"acquisition {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise AcquisitionError(f"acquisition {name!r} is no function")
    return found  # type: ignore[no-any-return]


def scores(name: str, pool: Pool) -> Floats:
    """What the function says of the pool's tasks: float32 (N,) in [0, 1], highest first. Raises AcquisitionError."""
    function = load(name)
    try:
        found = np.asarray(function(pool), dtype=np.float32)
    except Exception as error:  # somebody else's code
        raise AcquisitionError(f"acquisition {name!r} failed: {type(error).__name__}: {error}") from error
    if found.shape != pool.ids.shape:
        raise AcquisitionError(
            f"acquisition {name!r} returned the shape {found.shape} for {len(pool.ids)} tasks: one score a task"
        )
    wrong = np.flatnonzero(~((found >= 0) & (found <= 1)))  # not a number is wrong too
    if len(wrong):
        first = int(wrong[0])
        raise AcquisitionError(
            f"acquisition {name!r} gave task {pool.ids[first]} the score {found[first]:g}, and {len(wrong)} tasks one"
            " outside 0 to 1"
        )
    return found


def note(folder: Path, alarm: str | None) -> None:
    """Keep in a version's folder why its last order was not made by the function; None: it was."""
    save_json(folder / "acquisition.json", {"alarm": alarm})


def alarms(folder: Path) -> list[str]:
    """What an admin should know of the last order of a version."""
    path = folder / "acquisition.json"
    alarm = load_json(path)["alarm"] if path.exists() else None
    return [] if alarm is None else [f"{alarm}; the hybrid score orders the queue meanwhile"]
