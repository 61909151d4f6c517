"""A Label Studio in memory, for replays: what the loop asks of the real one, answered from a list of tasks.

Only those calls of `tasks.client.Client` that a cycle makes, with the real one's answers as far as the loop reads them.
"""

import io
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.client import PAGE
from tasks.images import ImageUnavailable

PROJECT = 1
REVIEWER = 1  # the user who answers


class ReplayLabelStudio:
    """One project. Raises KeyError for a task it does not have."""

    def __init__(self, label_config: str, data: Sequence[Mapping[str, Any]]) -> None:
        self._start = datetime.now(UTC)
        self._ticks = itertools.count(1)
        self._annotations, self._predictions = itertools.count(1), itertools.count(1)
        self._project: dict[str, Any] = {
            "id": PROJECT,
            "title": "Replay",
            "label_config": label_config,
            "created_at": self._now(),
            "sampling": "Sequential sampling",
            "model_version": "",
            "skip_queue": "REQUEUE_FOR_OTHERS",
        }
        self._tasks: dict[int, dict[str, Any]] = {
            number: {
                "id": number,
                "data": dict(fields),
                "updated_at": self._now(),
                "updated_by": [],
                "is_labeled": False,
                "overlap": 1,
                "total_annotations": 0,
                "cancelled_annotations": 0,
                "annotations": [],
                "predictions": [],
                "draft_exists": False,
            }
            for number, fields in enumerate(data, start=1)
        }

    def _now(self) -> str:
        """Later than whatever happened before."""
        return (self._start + timedelta(milliseconds=next(self._ticks))).isoformat()

    def answer(self, task: int, result: list[dict[str, Any]]) -> None:
        """Submit an annotation, as the reviewer does from what the published version shows."""
        row, now = self._tasks[task], self._now()
        version = self._project["model_version"]
        shown = [prediction["id"] for prediction in row["predictions"] if prediction["model_version"] == version]
        row["annotations"].append(
            {
                "id": next(self._annotations),
                "task": task,
                "result": result,
                "completed_by": REVIEWER,
                "updated_by": REVIEWER,
                "created_at": now,
                "updated_at": now,
                "was_cancelled": False,
                "ground_truth": False,
                "lead_time": None,
                "parent_prediction": shown[0] if shown else None,
            }
        )
        row |= {"updated_at": now, "updated_by": [{"user_id": REVIEWER}], "is_labeled": True}
        row["total_annotations"] += 1

    # the calls of tasks.client.Client

    def project(self, project_id: int) -> dict[str, Any]:
        """The project's settings and counts."""
        finished = sum(row["is_labeled"] for row in self._tasks.values())
        return self._project | {"task_number": len(self._tasks), "finished_task_number": finished}

    def update_project(self, project_id: int, **fields: Any) -> dict[str, Any]:
        """Change fields of the project."""
        self._project |= fields
        return self.project(project_id)

    def members(self) -> int:
        """How many people the organization has."""
        return 1

    def tasks(self, project_id: int, since: str | None = None) -> Iterator[list[dict[str, Any]]]:
        """Pages of tasks, all or those changed since."""
        after = datetime.fromisoformat(since) if since else datetime.min.replace(tzinfo=UTC)
        yield from _pages([row for row in self._tasks.values() if datetime.fromisoformat(row["updated_at"]) > after])

    def newest_change(self, project_id: int) -> str | None:
        """The newest `updated_at`; None without tasks."""
        return max((row["updated_at"] for row in self._tasks.values()), default=None)

    def tasks_by_id(self, project_id: int, ids: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
        """Pages of just these tasks."""
        yield from _pages([self._tasks[number] for number in ids])

    def update_task(self, task_id: int, **fields: Any) -> bool:
        """Change fields of a task, which moves no time of it; says whether it is there."""
        self._tasks[task_id] |= fields
        return True

    def import_predictions(self, project_id: int, predictions: Iterable[Mapping[str, Any]]) -> int:
        """Append predictions; returns how many."""
        body = list(predictions)
        for prediction in body:
            row = self._tasks[prediction["task"]]
            row["predictions"].append(dict(prediction) | {"id": next(self._predictions)})
        return len(body)

    def model_versions(self, project_id: int) -> dict[str, int]:
        """How many predictions each version has."""
        rows = self._tasks.values()
        return Counter(prediction["model_version"] for row in rows for prediction in row["predictions"])


def _pages(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(rows), PAGE):
        yield rows[start : start + PAGE]


class ReplayImages:
    """Image files, or arrays of pixels, under the addresses that task data names."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def fetch_many(
        self, urls: Sequence[str], project_id: int, workers: int
    ) -> Iterator[tuple[int, bytes | ImageUnavailable]]:
        """(index, bytes or why not), in order."""
        for index, url in enumerate(urls):
            try:
                yield index, _content(self._files[url])
            except (KeyError, OSError) as error:
                yield index, ImageUnavailable(f"{url} cannot be read: {error}")


def _content(file: Path) -> bytes:
    """The bytes of an image; pixels of a set size as a PNG, which is decoded to the same pixels."""
    if file.suffix != ".npy":
        return file.read_bytes()
    out = io.BytesIO()
    Image.fromarray(np.load(file)).save(out, "PNG", compress_level=1)
    return out.getvalue()
