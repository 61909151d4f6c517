"""Run the replays that are still missing, and write docs/evidence.md, or docs/evidence-masks.md, from all there are."""

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from backend import logs
from bench.evidence import document, patches, patches_document, replays

RESULTS = Path(__file__).parent / "results"
PROCESSES = 2
Replayed = Callable[[Any, Path], Iterator[str]]
"""Does a job, keeps its results in a file, and says what was done."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.evidence", description=__doc__)
    parser.add_argument("--masks", action="store_true", help="patches of masks at another site, instead of labels")
    parser.add_argument("--data", type=Path, default=replays.ROOT.parent / "shared" / "data", help="holds the folders")
    parser.add_argument(
        "--seeds", type=int, help="replays of each strategy, 20 (masks: 10); 0: write the document alone"
    )
    parser.add_argument("--state", type=Path, help="file to keep results in, below bench/evidence/results")
    parser.add_argument("--document", type=Path, help="docs/evidence.md, or docs/evidence-masks.md")
    chosen = parser.parse_args()
    state = chosen.state or RESULTS / ("masks.jsonl" if chosen.masks else "labels.jsonl")
    page = chosen.document or replays.ROOT / "docs" / ("evidence-masks.md" if chosen.masks else "evidence.md")
    state.parent.mkdir(parents=True, exist_ok=True)
    if chosen.masks:
        pairs = patches.pairs(chosen.data)
        finish(patches.replayed, patches.jobs(pairs, 10 if chosen.seeds is None else chosen.seeds, state), state)
        text = patches_document.written(pairs, patches.kept(state))
    else:
        sets = replays.data_sets(chosen.data)
        finish(
            replays.replayed, replays.jobs(sets, replays.SEEDS if chosen.seeds is None else chosen.seeds, state), state
        )
        text = document.written(sets, replays.kept(state))
    page.write_text(text, encoding="utf-8")


def finish(replayed: Replayed, jobs: Sequence[Any], state: Path) -> None:
    """Do the jobs in PROCESSES processes, in their order."""
    # Started anew, not forked: a forked process has PyTorch's threads only in name.
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        for done in [pool.submit(tell, replayed, job, state) for job in jobs]:
            done.result()


def tell(replayed: Replayed, job: Any, state: Path) -> None:
    """One job, in a process of its own, which prints what was done."""
    logs.configure("console", level=logging.WARNING)
    for line in replayed(job, state):
        print(line, flush=True)


if __name__ == "__main__":
    main()
