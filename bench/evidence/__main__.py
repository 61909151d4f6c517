"""Run the replays that are still missing, and write docs/evidence.md from all there are."""

import argparse
import logging
from pathlib import Path

from backend import logs
from bench.evidence import document, replays


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.evidence", description=__doc__)
    parser.add_argument("--data", type=Path, default=replays.ROOT.parent / "shared" / "data", help="holds busbra, ddti")
    parser.add_argument("--seeds", type=int, default=20, help="replays of each strategy; 0: write the document alone")
    parser.add_argument("--state", type=Path, default=replays.ROOT / "second-look-evidence" / "results.jsonl")
    parser.add_argument("--document", type=Path, default=replays.ROOT / "docs" / "evidence.md")
    chosen = parser.parse_args()
    logs.configure("console", level=logging.WARNING)
    sets = replays.data_sets(chosen.data)
    for line in replays.run(sets, chosen.seeds, chosen.state):
        print(line, flush=True)
    chosen.document.write_text(document.written(sets, replays.kept(chosen.state)), encoding="utf-8")


if __name__ == "__main__":
    main()
