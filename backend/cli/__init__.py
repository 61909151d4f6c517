"""The command line: `second-look`. Every command prints for a person, or one JSON object with --json."""

import logging

import typer

from backend.cli.auditing import audit
from backend.cli.connecting import disconnect, setup
from backend.cli.demonstration import demo, phantoms
from backend.cli.examining import doctor
from backend.cli.exchanging import export_review, import_review
from backend.cli.importing import import_probabilities
from backend.cli.models import models, promote
from backend.cli.reporting import report
from backend.cli.running import cycle, serve, worker
from backend.cli.seeing import rank, status
from backend.cli.simulating import simulate
from backend.cli.stopping import resume, stop
from backend.cli.tiling import tile, untile

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_show_locals=False)


@app.callback()
def configure() -> None:
    """Log to standard error without local variables, which may hold secrets."""
    from backend import logs

    logs.configure("console", level=logging.WARNING)


COMMANDS = (
    *(demo, phantoms, setup, disconnect, serve, worker, status, doctor, cycle, rank, stop, resume),
    *(import_probabilities, simulate, report, models, promote, tile, untile),
)
for command in COMMANDS:
    app.command()(command)
app.command("export")(export_review)
app.command("import")(import_review)
app.add_typer(audit, name="audit")
