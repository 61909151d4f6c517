"""`doctor`: what would break the loop, and how to mend it."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from backend.cli.terminal import Json, console, show

if TYPE_CHECKING:
    from backend.doctor import Examination


def doctor(
    project: Annotated[
        int | None, typer.Option("--project", help="Label Studio's number; all connected ones otherwise")
    ] = None,
    as_json: Json = False,
) -> None:
    """Name each thing that would break the loop, and how to mend it; changes nothing. Exit status 1 for errors."""
    from backend.doctor import examine
    from backend.settings import settings

    seen = examine(settings(), project)
    if as_json:
        findings = [asdict(finding) for finding in seen.findings]
        show({"passed": seen.passed, "findings": findings}, True, "")
    else:
        _print(seen)
    if any(finding.severity == "error" for finding in seen.findings):
        raise typer.Exit(1)


def _print(seen: "Examination") -> None:
    if not seen.findings:
        console.print(f"All {len(seen.checks)} checks passed: {', '.join(seen.checks)}.")
        return
    gaps: dict[tuple[str, int | None], list[str]] = {}
    for finding in seen.findings:
        where = "" if finding.project is None else f", project {finding.project}"
        if not finding.carried_out:
            gaps.setdefault((finding.what, finding.project), []).append(finding.check)
            continue
        colour = "red" if finding.severity == "error" else "yellow"
        console.print(f"[bold {colour}]{finding.severity}[/] [bold]{finding.check}[/]{where}: {escape(finding.what)}")
        console.print(f"  mend: {escape(finding.mend)}")
    for (what, project), checks in gaps.items():
        where = "" if project is None else f" (project {project})"
        console.print(f"[yellow]{escape(what)}[/]{where}: {', '.join(checks)}")
    errors = sum(finding.severity == "error" for finding in seen.findings)
    warnings = sum(finding.carried_out for finding in seen.findings) - errors
    console.print(f"\n{errors} errors, {warnings} warnings; {len(seen.passed)} of {len(seen.checks)} checks passed.")
