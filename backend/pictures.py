"""The cycle's first steps: every task's image becomes pixels on disk, and every task gets its fold."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import select

from backend.learning import folds
from backend.learning.decode import ImageError, decode, decode_whole
from backend.registry import Registry, save_array
from backend.settings import Settings
from backend.snapshot import Snapshot
from tasks.images import Images, ImageUnavailable
from tasks.labels import by_task, settle
from tasks.schema import Schema
from tasks.store import Store
from tasks.tables import Annotation, Task

log = structlog.get_logger()

CHUNK = 64  # tasks between two commits: what a kill loses is fetched again from the cache
WORKERS = 4  # downloads at a time
HOLDOUT_SHARE = 0.15  # of the tasks, by group; frozen, never trained on


def read_images(
    store: Store,
    images: Images,
    registry: Registry,
    settings: Settings,
    project_id: int,
    progress: Callable[[int, int], None],
    *,
    failed: bool = True,
    whole: bool = False,
) -> set[int]:
    """Fetch and decode what has no pixels of the set size yet; returns which tasks were read.

    whole: keep images at their own size as well, on which masks are learnt.
    A bad image costs its own task: the reason is kept in `task.image_error`, and it is tried again where those that
    `failed` are asked for, at the next cycle.
    """
    size = settings.image_size
    query = select(Task.id, Task.image, Task.pixels).where(Task.project_id == project_id, Task.deleted_at.is_(None))
    with store.begin() as session:
        rows = session.execute(query if failed else query.where(Task.image_error.is_(None))).all()
    read = set[int]()
    missing = [(row.id, row.image) for row in rows if not _kept(registry, size, row.pixels, whole)]
    for start in range(0, len(missing), CHUNK):
        chunk = missing[start : start + CHUNK]
        urls, outcome = dict(chunk), {}
        for index, data in images.fetch_many([image for _, image in chunk], project_id, WORKERS):
            task_id = chunk[index][0]
            outcome[task_id] = _to_pixels(data, registry, size, int(settings.max_megapixels * 1e6), whole)
            if outcome[task_id][1] is not None:
                log.warning("image cannot be used", project=project_id, task=task_id, reason=outcome[task_id][1])
        with store.begin() as session:
            for task in session.scalars(select(Task).where(Task.project_id == project_id, Task.id.in_(list(outcome)))):
                if task.image == urls[task.id]:  # else it was given another one while we read
                    task.pixels, task.image_error = outcome[task.id]
                    read.add(task.id)
        progress(start + len(chunk), len(missing))
    return read


def _folds_in(snapshot: Path) -> dict[str, int]:
    """The fold of each group in a snapshot; none where there is no such file."""
    if not snapshot.exists():
        return {}
    taken = Snapshot.load(snapshot)
    return dict(zip(taken.groups.tolist(), taken.folds.tolist(), strict=True))


def _kept(registry: Registry, size: int, digest: str | None, whole: bool) -> bool:
    return (
        bool(digest)
        and registry.pixels(size, str(digest)).exists()
        and (not whole or registry.whole(str(digest)).exists())
    )


def _to_pixels(
    data: bytes | ImageUnavailable, registry: Registry, size: int, pixel_limit: int, whole: bool
) -> tuple[str | None, str | None]:
    """(digest, None), or (None, reason)."""
    if isinstance(data, ImageUnavailable):
        return None, str(data)
    digest = hashlib.sha256(data).hexdigest()
    wanted: dict[Path, Callable[..., NDArray[np.uint8]]] = {registry.pixels(size, digest): partial(decode, size=size)}
    if whole:
        wanted[registry.whole(digest)] = decode_whole
    for path, read in wanted.items():
        if path.exists():
            continue
        try:
            save_array(path, read(data, pixel_limit=pixel_limit))
        except ImageError as error:
            return None, str(error)
    return digest, None


def assign_folds(store: Store, schema: Schema, settings: Settings, project_id: int, before: Path) -> None:
    """Give every readable task that has none a fold, by its group, balanced over the heaviest head's labels, if any.

    A group keeps the fold it ever had, also where all its tasks were deleted and are imported again: by the store,
    and by the snapshot of the last version (`before`, if there is one), since a new task may take a deleted one's row.
    """
    heaviest = max(schema.heads, key=lambda head: head.weight).name if schema.heads else ""
    with store.begin() as session:
        known = select(Task).where(Task.project_id == project_id, Task.pixels.is_not(None)).order_by(Task.id)
        tasks = session.scalars(known.where(Task.deleted_at.is_(None))).all()
        new = [task for task in tasks if task.fold is None]
        if not new:
            return
        said = by_task(session.scalars(select(Annotation).where(Annotation.project_id == project_id)))
        for task in new:
            # Without a group in the data, identical image bytes belong together.
            task.group = task.group or f"image:{task.pixels}"
        existing = _folds_in(before)
        for task in [*session.scalars(known.where(Task.deleted_at.is_not(None))), *tasks]:
            if task.fold is not None:
                existing[str(task.group)] = task.fold
        given = folds.assign(
            groups=[str(task.group) for task in tasks],
            strata=[settle(said.get(task.id, []), task.current).labels.get(heaviest, ()) for task in tasks],
            existing=existing,
            k=settings.folds,
            holdout_share=HOLDOUT_SHARE,
            seed=settings.seed,
        )
        for task, fold in zip(tasks, given, strict=True):
            task.fold = int(fold)
