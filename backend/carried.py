"""Heads whose weights a new version takes over from the one before: fitting them again would find the same."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from backend.learning.config import LearningConfig
from backend.learning.crossfit import CrossFit
from backend.learning.joined import select
from backend.learning.weights import load_crossfit
from backend.registry import load_json
from backend.survivors import answers, columns
from tasks.schema import Head, parse_label_config


def carried(
    before: Path, heads: Sequence[Head], learnt_from: Mapping[str, str], config: LearningConfig, backbones: str
) -> CrossFit | None:
    """The heads that version `before` (its folder) fitted to the same, in the present order of their classes.

    The same backbones, settings, images, folds and labels of the head (`Snapshot.learnt_from`, by head), whatever
    other heads came or went. None where there are none.
    """
    if not (before / "heads.safetensors").exists():
        return None
    said = load_json(before / "model.json")
    if said["learning"] != asdict(config) or said["backbones"] != backbones:
        return None
    order = columns(answers(parse_label_config(said["label_config"]).heads), heads)
    same = {name: order[name] for name, learnt in said["learnt_from"].items() if learnt_from.get(name) == learnt}
    return select(load_crossfit(before / "heads.safetensors"), same) if same else None
