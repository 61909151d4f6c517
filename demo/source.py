"""The tasks of a demo that carry their masks on record: without any, a first model would have nothing to learn from."""

from collections import Counter
from dataclasses import replace

from tasks.datafolder import DataFolder

SHARE = 4  # one row in so many, where no site is known


def source(read: DataFolder) -> tuple[DataFolder, str]:
    """The rows to import with their annotations, and in words which they are; none where no masks are learnt.

    Those of the site with the most masks, as though the model had been made there and then met the others; where there
    is one site alone, a quarter, by whole groups.
    """
    heads = {head.name for head in read.schema.masks}
    rows = [row for row in read.rows if heads and heads <= set(row.masks)]
    known = replace(read, rows=tuple(rows))
    site = read.schema.site_field
    sites = Counter(row.cells.get(site, "") for row in rows) if site else Counter[str]()
    if len(sites) > 1:
        chosen = sites.most_common(1)[0][0]
        found = replace(known, rows=tuple(row for row in rows if row.cells.get(str(site), "") == chosen))
        said = f"those of {chosen!r}"
    else:
        found, said = known.sample(max(1, len(rows) // SHARE), seed=0), "drawn at random"
    return found, f"{len(found.rows)} of {len(read.rows)} tasks come with their masks on record ({said})"
