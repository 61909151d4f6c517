"""Run the replays that are still missing, and write docs/evidence.md, or docs/evidence-masks.md, from all there are."""

import argparse
import logging
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

from backend import logs
from bench.evidence import correcting, document, patches, patches_document, replays

STATE = replays.ROOT / "second-look-evidence"
PROCESSES = 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.evidence", description=__doc__)
    parser.add_argument("--masks", action="store_true", help="patches of masks at another site, instead of labels")
    parser.add_argument("--data", type=Path, default=replays.ROOT.parent / "shared" / "data", help="holds the folders")
    parser.add_argument(
        "--seeds", type=int, help="replays of each strategy, 20 (masks: 10); 0: write the document alone"
    )
    parser.add_argument("--state", type=Path, help="file to keep results in, below second-look-evidence/")
    parser.add_argument("--document", type=Path, help="docs/evidence.md, or docs/evidence-masks.md")
    chosen = parser.parse_args()
    logs.configure("console", level=logging.WARNING)
    state = chosen.state or STATE / ("masks.jsonl" if chosen.masks else "results.jsonl")
    page = chosen.document or replays.ROOT / "docs" / ("evidence-masks.md" if chosen.masks else "evidence.md")
    if chosen.masks:
        text = of_masks(chosen.data, 10 if chosen.seeds is None else chosen.seeds, state)
    else:
        sets = replays.data_sets(chosen.data)
        seeds = 20 if chosen.seeds is None else chosen.seeds
        for line in chain(
            replays.run(sets, seeds, state), correcting.run(sets[0], min(seeds, correcting.SEEDS), state)
        ):
            print(line, flush=True)
        text = document.written(sets, replays.kept(state))
    page.write_text(text, encoding="utf-8")


def of_masks(data: Path, seeds: int, state: Path) -> str:
    """Replay what is missing, in PROCESSES processes; the document."""
    pairs = patches.pairs(data)
    state.parent.mkdir(parents=True, exist_ok=True)
    # Started anew, not forked: a forked process has PyTorch's threads only in name.
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        for job in [pool.submit(patches.replay, job, state) for job in patches.jobs(pairs, seeds, state)]:
            job.result()
    return patches_document.written(pairs, patches.kept(state))


if __name__ == "__main__":
    main()
