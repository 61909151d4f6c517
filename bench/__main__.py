"""Run the benchmarks of this folder, each a module with `results(scale)`, and print one JSON object a line."""

import argparse
import json
import logging
from importlib import import_module
from pathlib import Path

from rich.console import Console

from backend import logs


def main() -> None:
    names = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which: {', '.join(names)} (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the full size, for example 0.1")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(names):
        parser.error(f"there is no benchmark {min(unknown)!r}; there are {', '.join(names)}")
    logs.configure("console", level=logging.WARNING)  # the output is JSON lines
    for name in chosen.names or names:
        with Console(stderr=True).status(f"bench {name}"):
            for result in import_module(f"bench.{name}").results(chosen.scale):
                print(json.dumps(result._asdict()), flush=True)


if __name__ == "__main__":
    main()
