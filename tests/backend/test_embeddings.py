"""Embeddings on disk: each image once, in files that only grow, whatever is killed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from backend import embeddings
from backend.embeddings import Progress


class Backbone:
    """Embeds a digest as its number, and remembers what it was asked for."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.fails_after = fails_after

    def embed(self, digests: Sequence[str], progress: Progress) -> np.ndarray:
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise KeyboardInterrupt
        self.asked += digests
        progress(len(digests), len(digests))
        return np.array([[int(digest), -int(digest)] for digest in digests], dtype=np.float32)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "SHARD", 4)


def quiet(done: int, total: int) -> None:
    """No progress."""


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def test_each_image_is_embedded_once_and_found_in_any_order(tmp_path: Path) -> None:
    backbone, reported = Backbone(), []
    embeddings.extend(tmp_path, 0, [*numbers(6), "2"], backbone.embed, lambda *now: reported.append(now))
    embeddings.extend(tmp_path, 0, numbers(11), backbone.embed, quiet)
    assert backbone.asked == numbers(11)
    assert reported == [(4, 6), (6, 6)]
    found = embeddings.load(tmp_path, 0, ["10", "0", "5"])
    np.testing.assert_array_equal(found, [[10, -10], [0, 0], [5, -5]])
    with pytest.raises(KeyError):
        embeddings.load(tmp_path, 0, ["11"])


def test_images_that_come_one_at_a_time_do_not_become_a_file_each(tmp_path: Path) -> None:
    backbone = Backbone()
    for count in range(1, 11):
        where = embeddings.known(tmp_path, 0)
        embeddings.extend(tmp_path, 0, numbers(count), backbone.embed, quiet)
        assert where.items() <= embeddings.known(tmp_path, 0).items()  # who reads meanwhile finds what was named
    assert backbone.asked == numbers(10)
    assert len(list(tmp_path.glob("*.npz"))) == 3


def test_a_kill_costs_one_shard(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embeddings.extend(tmp_path, 0, numbers(10), Backbone(fails_after=8).embed, quiet)
    again = Backbone()
    embeddings.extend(tmp_path, 0, numbers(10), again.embed, quiet)
    assert again.asked == ["8", "9"]


def test_backbones_keep_apart(tmp_path: Path) -> None:
    first, second = Backbone(), Backbone()
    embeddings.extend(tmp_path, 0, numbers(2), first.embed, quiet)
    embeddings.extend(tmp_path, 1, numbers(2), second.embed, quiet)
    assert first.asked == second.asked == numbers(2)
