"""The report as one HTML page: no script, nothing from outside, readable on a phone and in print."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from backend.report import charts
from backend.report.charts import Line

# Nothing may be loaded or run, whatever a title or a label says.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MINUS = "\N{MINUS SIGN}"
FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "auc": "AUC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ece": "ECE",
}


def render(facts: dict[str, Any]) -> str:
    """The page for what `facts.gather` found."""
    return _environment().get_template("report.html").render(facts, charts=_charts(facts), figures=FIGURES)


def _charts(facts: dict[str, Any]) -> dict[str, Any]:
    """Only those there is something to draw for."""
    drawn = {}
    if facts["days"]:
        days = [(row["day"], row["reviews"]) for row in facts["days"]]
        drawn["days"] = charts.bars("Reviews per day", days, "reviews")
    arms = {"ranked": "by ranking", "random": "at random"}
    found = [Line(arms[arm], [(0, 0), *enumerate(totals, start=1)]) for arm, totals in facts["found"].items() if totals]
    if found:
        drawn["found"] = charts.lines("Wrong labels found after each review", found, "reviews", "found")
    curve = [
        Line(name, points, marked=True)
        for key, name in (("auc", "AUC"), ("macro_f1", "macro F1"))
        if (points := [(row["reviewed"], row[key]) for row in facts["curve"] if row[key] is not None])
    ]
    if curve:
        drawn["curve"] = charts.lines(
            "Learning curve: AUC and macro F1 over tasks reviewed",
            curve,
            "tasks reviewed before the training",
            "",
            True,
        )
    masks = facts["masks"]
    if masks is not None and masks["curve"]:
        series = [
            Line(
                name,
                [(row["reviewed"], row["dice"][name]) for row in masks["curve"] if row["dice"][name] is not None],
            )
            for name in masks["curve"][0]["dice"]
        ]
        shown = [replace(line, marked=True) for line in series if line.points]
        if shown:
            across = "tasks reviewed before the training"
            drawn["dice"] = charts.lines("Dice over tasks reviewed", shown, across, "Dice", True)
    if facts["reliability"] is not None:
        bins = [(row["confidence"], row["right"], row["answers"]) for row in facts["reliability"]["bins"]]
        drawn["reliability"] = charts.reliability("Reliability of the model in force", bins)
    return drawn


def _environment() -> Environment:
    environment = Environment(  # titles, labels and centres come from users: everything is escaped
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "percent": _percent, "signed": _signed, "points": _points}
    environment.filters |= {"whole": _whole, "seconds": _seconds, "minute": _minute}
    return environment


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", MINUS)


def _points(share: float) -> str:
    return f"{100 * share:+.0f}".replace("-", MINUS)


def _whole(value: float) -> str:
    return f"{value:.0f}".replace("-", MINUS)


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"


def _minute(time: str) -> str:
    """Of an ISO 8601 time."""
    return time[:16].replace("T", " ")
