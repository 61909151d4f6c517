"""`doctor`: what would break the loop, and how to mend it."""

from dataclasses import asdict
from typing import Annotated

import typer

from backend.cli.terminal import Json, console, show


def doctor(
    project: Annotated[
        int | None, typer.Option("--project", help="Label Studio's number; all connected ones otherwise")
    ] = None,
    as_json: Json = False,
) -> None:
    """Name each thing that would break the loop, and how to mend it; changes nothing. Exit status 1 for errors."""
    from rich.markup import escape

    from backend.doctor import CHECKS, examine
    from backend.settings import settings

    findings = examine(settings(), project)
    failed = {finding.check for finding in findings}
    passed = [name for name in CHECKS if name not in failed]
    value = {"passed": passed, "findings": [asdict(finding) for finding in findings]}
    if as_json:
        show(value, True, "")
    elif not findings:
        console.print(f"All {len(CHECKS)} checks passed: {', '.join(CHECKS)}.")
    else:
        for finding in findings:
            colour = "red" if finding.severity == "error" else "yellow"
            where = "" if finding.project is None else f", project {finding.project}"
            console.print(
                f"[bold {colour}]{finding.severity}[/] [bold]{finding.check}[/]{where}: {escape(finding.what)}"
            )
            console.print(f"  mend: {escape(finding.mend)}")
        errors = sum(finding.severity == "error" for finding in findings)
        console.print(
            f"\n{errors} errors, {len(findings) - errors} warnings; {len(passed)} of {len(CHECKS)} checks passed."
        )
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)
