"""Images small enough to train on in a test, in groups whose near-duplicates make a leak learnable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tasks.schema import Head


def head(name: str, classes: str, weight: float = 1.0, kind: str = "single") -> Head:
    return Head(
        name=name,
        to_name="image",
        kind=kind,  # type: ignore[arg-type]
        classes=tuple(classes.split()),
        weight=weight,
        ordinal=False,
        current=None,
        positive=None,
        required=True,
    )


@dataclass(frozen=True)
class Cohort:
    """N images 32 pixels wide of G patients; the label is a property of the patient, seen in the image."""

    pixels: np.ndarray
    groups: list[str]
    labels: np.ndarray
    heads: list[Head]

    def targets(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """One-hot labels of the head "bom", and a second head that says the same of half of the rows."""
        bom = np.eye(2, dtype=np.float32)[labels]
        signs = bom.copy()
        signs[::2] = np.nan
        return {"bom": bom, "signs": signs}

    def permuted(self, seed: int) -> np.ndarray:
        """Labels dealt anew to the patients: nothing in an image tells them, but the other images of the patient do."""
        names, group_of_row = np.unique(self.groups, return_inverse=True)
        first = np.array([self.labels[self.groups.index(name)] for name in names])
        return np.random.default_rng(seed).permutation(first)[group_of_row]


@pytest.fixture(scope="session")
def cohort() -> Cohort:
    rng = np.random.default_rng(0)
    patients, images = 400, 3
    labels = rng.permutation(np.arange(patients) % 2)
    identity = rng.normal(size=(patients, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    spot = np.exp(-((np.mgrid[:32, :32] - 15.5) ** 2).sum(axis=0) / 40)[:, :, None]
    base = 127 + 45 * identity + 52 * (labels[:, None, None, None] * 2 - 1) * spot
    pixels = base.repeat(images, axis=0) + 6 * rng.normal(size=(patients * images, 32, 32, 3))
    return Cohort(
        pixels=np.clip(pixels, 0, 255).astype(np.uint8),
        groups=[f"patient {index}" for index in range(patients) for _ in range(images)],
        labels=labels.repeat(images),
        heads=[head("bom", "benign malignant", 0.9), head("signs", "none some", 0.1, "multiple")],
    )
