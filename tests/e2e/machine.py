"""`second-look worker` as on a machine of its own: `python machine.py NAME`. Its leases run out after seconds."""

import sys

from backend import jobs

jobs._machine = lambda: sys.argv[1]
jobs.LEASE = 4.0

if __name__ == "__main__":
    from backend.cli import app

    app(["worker", "--json"])
