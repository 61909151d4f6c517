"""The learning curves of a replay as one SVG file: errors found, macro F1 and AUC, with their intervals over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from backend.report.charts import COLOURS, HEIGHT, WIDTH, Line, lines

PANELS = {"errors_found": "Errors found", "macro_f1": "Macro F1 on hold-out", "auc": "AUC on hold-out"}
TALL = HEIGHT + 60  # with the names of the strategies


def learning_curves(summaries: Sequence[Mapping[str, Any]]) -> str:
    """One panel for each of PANELS, from what `curves.summary` says of each strategy.

    Raises ValueError for more strategies than there are colours.
    """
    if len(summaries) > len(COLOURS):
        raise ValueError(f"{len(summaries)} strategies are too many for one plot: at most {len(COLOURS)}")
    panels = Markup().join(
        Markup('<svg x="{}" y="0" width="{}" height="{}">{}</svg>').format(
            place * WIDTH,
            WIDTH,
            TALL,
            lines(title, [_line(found, figure) for found in summaries], "reviewed", title, True),
        )
        for place, (figure, title) in enumerate(PANELS.items())
    )
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}">'
            '<rect width="{w}" height="{h}" fill="#ffffff"/><style>text {{ font: 12px sans-serif }}</style>{}</svg>'
        ).format(panels, w=WIDTH * len(PANELS), h=TALL)
    )


def _line(found: Mapping[str, Any], figure: str) -> Line:
    """The counts at which every seed has the figure."""
    there = [(count, value) for count, value in zip(found["reviewed"], found[figure], strict=True) if value is not None]
    several = found["seeds"] > 1
    return Line(
        found["strategy"],
        [(count, value[0]) for count, value in there],
        band=[(count, value[1], value[2]) for count, value in there] if several else (),
    )
