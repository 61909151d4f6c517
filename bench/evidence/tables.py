"""Figures and tables of the documents: the mean over seeds, and the interval of that mean."""

from collections.abc import Sequence


def verdict(reached: bool) -> str:
    """In bold where it was not."""
    return "reached" if reached else "**not reached**"


def number(value: Sequence[float] | None, digits: int) -> str:
    """[mean, low, high] as text; a dash for none."""
    return "-" if value is None else f"{value[0]:.{digits}f} ({value[1]:.{digits}f} to {value[2]:.{digits}f})"


def signed(value: Sequence[float] | None) -> str:
    """A difference, likewise."""
    return "-" if value is None else f"{value[0]:+.3f} ({value[1]:+.3f} to {value[2]:+.3f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
