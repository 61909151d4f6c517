"""Every pair of sites' replays of corrected patches by seed, each strategy's result kept as a line of JSON."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import torch

from backend.replay.patch_run import SMALL, Moment, replay_patches
from backend.replay.sites import site_called, sites
from bench.evidence.replays import ROOT
from tasks import datafolder
from tasks.schema import parse_label_config

STRATEGIES = ("hybrid", "foreground-random", "random", "paper", "hybrid+refit")
FEWER = {"paper": 5, "hybrid+refit": 3}  # seeds
BUDGET = 20
FIRST_SEED = 100  # beyond those that the choice of patches, rates and sizes were tried on

Results = dict[tuple[str, int, str], list[Moment]]


@dataclass(frozen=True)
class Pair:
    """Two sites of a data folder, as `second-look simulate` is told of them."""

    name: str
    label_config: Path
    folder: Path
    source: str
    target: str


@dataclass(frozen=True)
class Job:
    """One seed of a pair, and the strategies that are missing of it."""

    pair: Pair
    seed: int
    strategies: tuple[str, ...]


def pairs(data: Path) -> list[Pair]:
    """The three pairs; data: the folder that holds their data folders."""
    examples = ROOT / "docs" / "examples"
    return [
        Pair("retina", examples / "retina.xml", data / "retina_drive_chase", "DRIVE", "CHASE_DB1"),
        Pair("nuclei", examples / "nuclei.xml", data / "nuclei_dsb2018", "fluorescence", "stained-light"),
        Pair("busbra", examples / "busbra-masks.xml", data / "busbra", "GE Logiq 7", "GE Logiq 5"),
    ]


def kept(state: Path) -> Results:
    """The results so far, by pair, seed and strategy; a line that a kill cut off is left out."""
    found: Results = {}
    for line in state.read_text(encoding="utf-8").splitlines() if state.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[row["data"], row["seed"], row["strategy"]] = [Moment(**entry) for entry in row["moments"]]
    return found


def jobs(chosen: list[Pair], seeds: int, state: Path) -> list[Job]:
    """What is not in `state` yet, of pairs whose data are there: seed by seed."""
    done, found = kept(state), []
    for seed, pair in product(range(FIRST_SEED, FIRST_SEED + seeds), chosen):
        wanted = [name for name in STRATEGIES if seed - FIRST_SEED < FEWER.get(name, seeds)]
        missing = tuple(name for name in wanted if (pair.name, seed, name) not in done)
        if missing and pair.folder.is_dir():
            found.append(Job(pair, seed, missing))
    return found


def replayed(job: Job, state: Path) -> Iterator[str]:
    """Replay one job on one core, and keep each strategy as soon as it is done; says what was done."""
    torch.set_num_threads(1)
    config = job.pair.label_config.read_text(encoding="utf-8")
    read = datafolder.read(job.pair.folder, parse_label_config(config))
    sides = (site_called(read, job.pair.source, "source"), site_called(read, job.pair.target, "target"))
    found: dict[str, list[Moment]] = {}
    drawn = sites(read, *sides, job.seed)
    for name, moment in replay_patches(drawn, job.strategies, BUDGET, replace(SMALL, seed=job.seed)):
        found.setdefault(name, []).append(moment)
        if moment.patches != BUDGET:
            continue
        row = {"data": job.pair.name, "seed": job.seed, "strategy": name, "moments": list(map(asdict, found[name]))}
        with state.open("a", encoding="utf-8") as lines:
            lines.write(f"\n{json.dumps(row)}\n")  # on a line of its own, also behind one that was cut off
        yield f"{job.pair.name}, seed {job.seed}, {name}: Dice {found[name][0].dice:.3f} to {moment.dice:.3f}"
