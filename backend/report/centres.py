"""How far the confidence of the model in force holds at each centre."""

from typing import Any

from backend import centres
from backend.report.material import Material

SHOWN = 30  # the largest first, but for those where it breaks


def per_centre(material: Material) -> dict[str, Any] | None:
    """What the version kept when it was made (`centres.of_version`), and how many centres are left out; None without.

    Broken ones come first, then the largest.
    """
    number = material.project.version
    kept = None if number is None else centres.of_version(material.registry.version(material.project.id, number))
    if kept is None or not kept["centres"]:
        return None
    rows = sorted(kept["centres"], key=lambda row: (not row["broken"], -row["n"], row["site"]))
    return kept | {"version": number, "centres": rows[:SHOWN], "left_out": max(len(rows) - SHOWN, 0)}
