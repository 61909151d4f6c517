"""The clinical model behind the phantoms: ACR's point table, and patients drawn from it.

Point table: Tessler et al., "ACR Thyroid Imaging, Reporting and Data System (TI-RADS): White Paper of the
ACR TI-RADS Committee", J Am Coll Radiol 2017;14:587-595. The level mix and the malignancy rates are not
ACR's (about 0.3, 1.5, 5, 9 and 35 %): they are steeper, so that a model which reads the level off an image
can reach an AUC of 0.94, and no model can do better, because nothing but the level decides malignancy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

POINTS: Mapping[str, Mapping[str, int]] = {
    "composition": {"cystic": 0, "spongiform": 0, "mixed": 1, "solid": 2},
    "echogenicity": {"anechoic": 0, "iso or hyperechoic": 1, "hypoechoic": 2, "very hypoechoic": 3},
    "shape": {"wider": 0, "taller": 3},
    "margin": {"smooth": 0, "ill-defined": 0, "irregular": 2, "extrathyroidal": 3},
    "foci": {"none": 0, "macrocalcifications": 1, "peripheral": 2, "punctate": 3},
}
LEVELS = ("TR1", "TR2", "TR3", "TR4", "TR5")
BOM = ("benign", "malignant")

LEVEL_QUOTA = (6, 7, 11, 10, 16)  # patients of each level in every block of 50
MALIGNANT_SHARE = (0.005, 0.015, 0.06, 0.42, 0.945)  # of each level's patients
VIEWS_SHARE = (0.4, 0.35, 0.15, 0.1)  # patients with one, two, three, four images

# How often each feature is seen, given the composition; the level a patient was drawn with then ties the
# features to one another (a TR5 nodule collects several suspicious ones, as in life).
_COMPOSITION = {"cystic": 0.14, "spongiform": 0.14, "mixed": 0.27, "solid": 0.45}
_GIVEN: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "cystic": {
        "echogenicity": {"anechoic": 1.0},
        "shape": {"wider": 1.0},
        "margin": {"smooth": 1.0},
        "foci": {"peripheral": 0.12},
    },
    "spongiform": {
        "echogenicity": {"iso or hyperechoic": 0.85, "hypoechoic": 0.15},
        "shape": {"wider": 1.0},
        "margin": {"smooth": 0.85, "ill-defined": 0.15},
        "foci": {},
    },
    "mixed": {
        "echogenicity": {"iso or hyperechoic": 0.62, "hypoechoic": 0.33, "very hypoechoic": 0.05},
        "shape": {"wider": 0.93, "taller": 0.07},
        "margin": {"smooth": 0.62, "ill-defined": 0.2, "irregular": 0.14, "extrathyroidal": 0.04},
        "foci": {"macrocalcifications": 0.15, "peripheral": 0.06, "punctate": 0.1},
    },
    "solid": {
        "echogenicity": {"iso or hyperechoic": 0.28, "hypoechoic": 0.44, "very hypoechoic": 0.28},
        "shape": {"wider": 0.6, "taller": 0.4},
        "margin": {"smooth": 0.34, "ill-defined": 0.14, "irregular": 0.36, "extrathyroidal": 0.16},
        "foci": {"macrocalcifications": 0.18, "peripheral": 0.07, "punctate": 0.45},
    },
}


@dataclass(frozen=True)
class Features:
    """What a reader describes of one nodule; `foci` is never empty, and ("none",) where there are none."""

    composition: str
    echogenicity: str
    shape: str
    margin: str
    foci: tuple[str, ...]


@dataclass(frozen=True)
class Patient:
    """One nodule, seen in `views` images; `number` counts from 0."""

    number: int
    features: Features
    level: str
    malignant: bool
    site: int
    views: int


@dataclass(frozen=True)
class Ceiling:
    """AUC of the true TI-RADS level for malignancy: on the images drawn, and expected of the clinical model.

    `realised` is NaN where the images drawn are all benign or all malignant.
    """

    realised: float
    expected: float


def points(features: Features) -> int:
    """ACR's points of a nodule. A spongiform nodule scores 0, whatever its other features."""
    if features.composition == "spongiform":
        return 0
    one_each = sum(POINTS[name][getattr(features, name)] for name in ("composition", "echogenicity", "shape", "margin"))
    return one_each + sum(POINTS["foci"][focus] for focus in features.foci)


def level(features: Features) -> str:
    """TR1 (0 points), TR2 (2), TR3 (3), TR4 (4 to 6), TR5 (7 or more).

    ACR has no level for 1 point: it holds that any nodule which is not TR1 collects two. The table allows
    it all the same (a cyst with a macrocalcification); such a nodule is not plainly benign, so it is TR2
    here. None is drawn.
    """
    total = points(features)
    if total == 0:
        return "TR1"
    if total <= 2:
        return "TR2"
    if total == 3:
        return "TR3"
    return "TR4" if total <= 6 else "TR5"


def auc(benign: Sequence[float], malignant: Sequence[float]) -> float:
    """P(a malignant level > a benign one) + P(equal) / 2, from the weight of each level; NaN without both."""
    negative, positive = np.asarray(benign, dtype=float), np.asarray(malignant, dtype=float)
    pairs = negative.sum() * positive.sum()
    if pairs == 0:
        return float("nan")
    return float(positive @ (np.cumsum(negative) - negative / 2) / pairs)


def ceiling(patients: Sequence[Patient]) -> Ceiling:
    """The AUC no reader of these patients' images can be expected to beat; each patient counts per image."""
    counts = np.zeros((2, len(LEVELS)))
    for patient in patients:
        counts[int(patient.malignant), LEVELS.index(patient.level)] += patient.views
    quota, share = np.array(LEVEL_QUOTA), np.array(MALIGNANT_SHARE)
    return Ceiling(realised=auc(counts[0], counts[1]), expected=auc(quota * (1 - share), quota * share))


def draw_patients(images: int, sites: int, seed: int) -> list[Patient]:
    """Patients with `images` images in all; the last one is cut short where the total asks for it.

    Levels come in blocks of 50 patients with a fixed mix, and malignancy at regular intervals within each
    level, so that small sets realise the expected ceiling too; a patient does not depend on `images`.
    """
    patients: list[Patient] = []
    left = images
    for patient in _every_patient(sites, seed):
        if patient.views >= left:
            patients.append(
                Patient(patient.number, patient.features, patient.level, patient.malignant, patient.site, left)
            )
            return patients
        patients.append(patient)
        left -= patient.views
    raise AssertionError("patients never end")


def _every_patient(sites: int, seed: int) -> Iterator[Patient]:
    rng = np.random.default_rng([seed, 1])
    owed = rng.random(len(LEVELS))
    number = 0
    while True:
        order = rng.permutation(np.repeat(np.arange(len(LEVELS)), LEVEL_QUOTA))
        for rank in order.tolist():
            features = _draw_features(LEVELS[rank], rng)
            owed[rank] += MALIGNANT_SHARE[rank]
            malignant = bool(owed[rank] >= 1)
            owed[rank] -= malignant
            site = int(rng.integers(sites))
            views = 1 + int(rng.choice(len(VIEWS_SHARE), p=VIEWS_SHARE))
            yield Patient(number, features, LEVELS[rank], malignant, site, views)
            number += 1


def _draw_features(wanted: str, rng: np.random.Generator) -> Features:
    while True:
        composition = _pick(_COMPOSITION, rng)
        given = _GIVEN[composition]
        foci = tuple(focus for focus, share in given["foci"].items() if rng.random() < share)
        features = Features(
            composition=composition,
            echogenicity=_pick(given["echogenicity"], rng),
            shape=_pick(given["shape"], rng),
            margin=_pick(given["margin"], rng),
            foci=foci or ("none",),
        )
        if level(features) == wanted:
            return features


def _pick(shares: Mapping[str, float], rng: np.random.Generator) -> str:
    return list(shares)[int(rng.choice(len(shares), p=list(shares.values())))]
