"""Charts as inline SVG, from numbers alone: no script, no font, no address; told apart by dash as well as by colour."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from markupsafe import Markup, escape

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 34, 46
INNER_WIDTH, INNER_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
# Okabe and Ito's, told apart by colour-blind eyes; the first two are the blue and the vermilion.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#767676")
DASHES = ("", "6 4", "2 3", "9 3 2 3", "12 4", "4 2", "1 4", "8 2 1 2")
IN_A_ROW = 3  # names in a row below a chart of more than two lines


@dataclass(frozen=True)
class Line:
    """A named series of points; marked: with a dot on each. band: (x, low, high), an interval drawn behind the line."""

    name: str
    points: Sequence[tuple[float, float]]
    marked: bool = False
    band: Sequence[tuple[float, float, float]] = ()


def lines(title: str, series: Sequence[Line], across: str, up: str, unit: bool = False) -> Markup:
    """Up to eight series over numbers from 0 on; unit: the height is 0 to 1, else from 0 to the largest value.

    The names of two stand above the chart, those of more below it.
    """
    points = [point for line in series for point in line.points]
    far = _rounded_up(max((x for x, _ in points), default=0))
    high = 1.0 if unit else _rounded_up(max((y for _, y in points), default=0))
    bands = [_band(i, line, far, high) for i, line in enumerate(series) if line.band]
    drawn = [_line(i, line, far, high) for i, line in enumerate(series)]
    below = len(series) > 2
    keys = [_key(i, line.name, below) for i, line in enumerate(series)]
    body = Markup().join([_axes(far, high, across, up), *bands, *drawn, *keys])
    return _figure(title, body, HEIGHT + 20 * math.ceil(len(series) / IN_A_ROW) if below else HEIGHT)


def bars(title: str, days: Sequence[tuple[str, int]], up: str) -> Markup:
    """Counts by day (ISO dates, in order); days without a count leave their place empty."""
    ordinals = [date.fromisoformat(day).toordinal() for day, _ in days]
    span = ordinals[-1] - ordinals[0] + 1
    high = _rounded_up(max(count for _, count in days))
    step = INNER_WIDTH / span
    width = min(max(step * 0.8, 1.0), 40.0)
    parts = [_frame("", up), _heights(high)]
    for ordinal, (day, count) in zip(ordinals, days, strict=True):
        centre, top = LEFT + (ordinal - ordinals[0] + 0.5) * step, _y(count, high)
        parts.append(
            Markup(
                '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}"><title>{}: {}</title></rect>'
            ).format(centre - width / 2, top, width, TOP + INNER_HEIGHT - top, COLOURS[0], day, count)
        )
    under = TOP + INNER_HEIGHT + 18
    if span == 1:
        parts.append(_text(LEFT + INNER_WIDTH / 2, under, days[0][0], "middle"))
    else:
        parts.append(_text(LEFT, under, days[0][0], "start") + _text(LEFT + INNER_WIDTH, under, days[-1][0], "end"))
    return _figure(title, Markup().join(parts))


def reliability(title: str, bins: Sequence[tuple[float, float, int]]) -> Markup:
    """Mean confidence against the share that is right (x, y, answers), beside the line of honest confidence.

    A dot's area follows the number of its answers.
    """
    most = max((answers for _, _, answers in bins), default=1)
    honest = Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="#767676" stroke-dasharray="3 4"/>').format(
        LEFT, TOP + INNER_HEIGHT, LEFT + INNER_WIDTH, TOP
    )
    dots = [
        Markup(
            '<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" fill="{}" fill-opacity="0.75"><title>{}</title></circle>'
        ).format(
            *(_x(x, 1), _y(y, 1), 3 + 9 * (answers / most) ** 0.5, COLOURS[0]),
            f"{answers} answers, said {x:.0%}, right {y:.0%}",
        )
        for x, y, answers in bins
    ]
    frame = _axes(1.0, 1.0, "confidence", "share right")
    return _figure(title, Markup().join([frame, honest, *dots]))


def _figure(title: str, body: Markup, height: int = HEIGHT) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img"><title>{}</title>{}</svg>').format(WIDTH, height, title, body)


def _axes(far: float, high: float, across: str, up: str) -> Markup:
    marks = [_text(_x(far * part, far), TOP + INNER_HEIGHT + 18, _number(far * part), "middle") for part in (0, 0.5, 1)]
    return Markup().join([_frame(across, up), _heights(high), *marks])


def _frame(across: str, up: str) -> Markup:
    """The names of both axes."""
    return _text(LEFT + INNER_WIDTH / 2, HEIGHT - 8, across, "middle") + _text(2, 14, up, "start")


def _heights(high: float) -> Markup:
    rule = Markup('<line x1="{}" y1="{y:.1f}" x2="{}" y2="{y:.1f}" stroke="#d9d9d9"/>')
    return Markup().join(
        rule.format(LEFT, LEFT + INNER_WIDTH, y=_y(high * part, high))
        + _text(LEFT - 6, _y(high * part, high) + 4, _number(high * part), "end")
        for part in (0, 0.5, 1)
    )


def _line(index: int, line: Line, far: float, high: float) -> Markup:
    colour, dash = COLOURS[index], DASHES[index]
    places = [(_x(x, far), _y(y, high)) for x, y in line.points]
    drawn = Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="2.5" stroke-dasharray="{}"/>').format(
        " ".join(f"{x:.1f},{y:.1f}" for x, y in places), colour, dash
    )
    dots = [
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4" fill="{}"/>').format(x, y, colour)
        for x, y in (places if line.marked else places[-1:])
    ]
    return Markup().join([drawn, *dots])


def _band(index: int, line: Line, far: float, high: float) -> Markup:
    """The interval, as far as the chart reaches."""
    upper = [(_x(x, far), _y(min(top, high), high)) for x, _, top in line.band]
    lower = [(_x(x, far), _y(max(bottom, 0), high)) for x, bottom, _ in reversed(line.band)]
    return Markup('<polygon points="{}" fill="{}" fill-opacity="0.13"/>').format(
        " ".join(f"{x:.1f},{y:.1f}" for x, y in [*upper, *lower]), COLOURS[index]
    )


def _key(index: int, name: str, below: bool) -> Markup:
    """A line's name beside a piece of it."""
    left, middle = LEFT + 100 + index * 150, 10
    if below:
        left, middle = LEFT + index % IN_A_ROW * 130, HEIGHT + 10 + 20 * (index // IN_A_ROW)
    piece = Markup(
        '<line x1="{}" y1="{y}" x2="{}" y2="{y}" stroke="{}" stroke-width="2.5" stroke-dasharray="{}"/>'
    ).format(left, left + 26, COLOURS[index], DASHES[index], y=middle)
    return piece + _text(left + 32, middle + 4, name, "start")


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, escape(text))


def _x(value: float, far: float) -> float:
    return LEFT + INNER_WIDTH * value / far


def _y(value: float, high: float) -> float:
    return TOP + INNER_HEIGHT * (1 - value / high)


def _rounded_up(value: float) -> float:
    """The end of an axis of counts: of two significant digits and even, so that half of it is whole; never 0."""
    step = 2 * 10 ** max(len(str(int(value))) - 2, 0)
    return float(max(math.ceil(value / step), 1) * step)


def _number(value: float) -> str:
    return f"{value:g}"
