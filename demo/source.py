"""The tasks of a demo that carry their masks on record: without any, a first model would have nothing to learn from."""

from collections import Counter
from dataclasses import replace

from tasks.datafolder import DataFolder

SHARE = 4  # one row in so many


def source(read: DataFolder) -> tuple[DataFolder, str]:
    """The rows to import with their annotations, and in words which they are; none where no masks are learnt.

    Up to a quarter, by whole groups, of the site with the most masks, as though the model had been made there and then
    met the others; where no sites are known, of all.
    """
    heads, site = {head.name for head in read.schema.masks}, read.schema.site_field
    rows = [row for row in read.rows if heads and heads <= set(row.masks)]
    sites = Counter(row.cells.get(site, "") for row in rows) if site else Counter[str]()
    said = "drawn at random"
    if len(sites) > 1:
        chosen = sites.most_common(1)[0][0]
        rows, said = [row for row in rows if row.cells.get(str(site), "") == chosen], f"of {chosen!r}"
    found = replace(read, rows=tuple(rows)).sample(len(read.rows) // SHARE, seed=0)
    return found, f"{len(found.rows)} of {len(read.rows)} tasks come with their masks on record ({said})"
