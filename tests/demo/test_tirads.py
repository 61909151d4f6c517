"""ACR's point table by hand, and the ceiling of the clinical model beside scikit-learn's AUC."""

import itertools
import math
from collections import Counter

import pytest
from sklearn.metrics import roc_auc_score

from demo.tirads import LEVELS, POINTS, Features, auc, ceiling, draw_patients, level, points

# composition, echogenicity, shape, margin, foci, points and level, worked out by hand from the white paper.
BY_HAND = [
    ("cystic", "anechoic", "wider", "smooth", ("none",), 0, "TR1"),
    ("cystic", "anechoic", "wider", "smooth", ("macrocalcifications",), 1, "TR2"),
    ("cystic", "anechoic", "wider", "smooth", ("peripheral",), 2, "TR2"),
    ("cystic", "anechoic", "taller", "smooth", ("none",), 3, "TR3"),
    ("spongiform", "iso or hyperechoic", "wider", "smooth", ("none",), 0, "TR1"),
    ("spongiform", "hypoechoic", "taller", "irregular", ("punctate",), 0, "TR1"),
    ("mixed", "iso or hyperechoic", "wider", "smooth", ("none",), 2, "TR2"),
    ("mixed", "iso or hyperechoic", "wider", "ill-defined", ("none",), 2, "TR2"),
    ("mixed", "hypoechoic", "wider", "smooth", ("none",), 3, "TR3"),
    ("mixed", "iso or hyperechoic", "wider", "smooth", ("macrocalcifications",), 3, "TR3"),
    ("mixed", "very hypoechoic", "wider", "smooth", ("none",), 4, "TR4"),
    ("mixed", "hypoechoic", "wider", "irregular", ("punctate",), 8, "TR5"),
    ("solid", "iso or hyperechoic", "wider", "smooth", ("none",), 3, "TR3"),
    ("solid", "hypoechoic", "wider", "smooth", ("none",), 4, "TR4"),
    ("solid", "very hypoechoic", "wider", "ill-defined", ("none",), 5, "TR4"),
    ("solid", "hypoechoic", "wider", "irregular", ("none",), 6, "TR4"),
    ("solid", "iso or hyperechoic", "wider", "smooth", ("macrocalcifications", "peripheral"), 6, "TR4"),
    ("solid", "iso or hyperechoic", "taller", "smooth", ("none",), 6, "TR4"),
    ("solid", "hypoechoic", "taller", "smooth", ("none",), 7, "TR5"),
    ("solid", "hypoechoic", "wider", "extrathyroidal", ("none",), 7, "TR5"),
    ("solid", "hypoechoic", "wider", "smooth", ("punctate",), 7, "TR5"),
    (
        *("solid", "very hypoechoic", "taller", "extrathyroidal"),
        ("macrocalcifications", "peripheral", "punctate"),
        *(17, "TR5"),
    ),
]


@pytest.mark.parametrize(("composition", "echogenicity", "shape", "margin", "foci", "total", "expected"), BY_HAND)
def test_points_and_level_are_those_of_the_white_paper(
    composition: str,
    echogenicity: str,
    shape: str,
    margin: str,
    foci: tuple[str, ...],
    total: int,
    expected: str,
) -> None:
    features = Features(composition, echogenicity, shape, margin, foci)
    assert points(features) == total
    assert level(features) == expected


def test_no_feature_makes_a_nodule_less_suspicious() -> None:
    one_each = [POINTS[name] for name in ("composition", "echogenicity", "shape", "margin")]
    for chosen in itertools.product(*one_each):
        plain = Features(*chosen, foci=("none",))
        for focus in ("macrocalcifications", "peripheral", "punctate"):
            assert LEVELS.index(level(Features(*chosen, foci=(focus,)))) >= LEVELS.index(level(plain))


def test_every_patient_has_the_level_of_its_features_and_none_scores_one_point() -> None:
    patients = draw_patients(3000, sites=3, seed=5)
    assert all(patient.level == level(patient.features) for patient in patients)
    assert 1 not in {points(patient.features) for patient in patients}
    assert [patient.number for patient in patients] == list(range(len(patients)))
    assert sum(patient.views for patient in patients) == 3000
    assert {patient.views for patient in patients} == {1, 2, 3, 4}
    for name in ("composition", "echogenicity", "shape", "margin"):
        assert {getattr(patient.features, name) for patient in patients} == set(POINTS[name])
    assert {focus for patient in patients for focus in patient.features.foci} == set(POINTS["foci"])
    assert any(len(patient.features.foci) > 1 for patient in patients)


def test_the_ceiling_is_the_auc_of_the_level_and_stays_in_its_range() -> None:
    for seed in range(40):
        patients = draw_patients(600, sites=3, seed=seed)
        images = [patient for patient in patients for _ in range(patient.views)]
        malignant = [patient.malignant for patient in images]
        reached = ceiling(patients)
        by_sklearn = roc_auc_score(malignant, [LEVELS.index(patient.level) for patient in images])
        assert reached.realised == pytest.approx(by_sklearn)
        assert 0.92 <= reached.realised <= 0.96
        assert 0.93 <= reached.expected <= 0.95
        assert 0.33 <= sum(malignant) / len(malignant) <= 0.47


def test_a_large_draw_realises_what_is_expected() -> None:
    reached = ceiling(draw_patients(20_000, sites=3, seed=0))
    assert reached.realised == pytest.approx(reached.expected, abs=0.005)


def test_malignancy_rises_with_the_level() -> None:
    patients = draw_patients(6000, sites=3, seed=2)
    drawn = Counter(patient.level for patient in patients)
    malignant = Counter(patient.level for patient in patients if patient.malignant)
    shares = [malignant[name] / drawn[name] for name in LEVELS]
    assert shares == sorted(shares)
    assert shares[-1] > 0.9


def test_a_patient_does_not_depend_on_how_many_images_are_asked_for() -> None:
    few, many = draw_patients(100, sites=3, seed=3), draw_patients(700, sites=3, seed=3)
    assert few[:-1] == many[: len(few) - 1]
    assert few[-1].features == many[len(few) - 1].features


def test_auc_without_both_classes_is_not_a_number() -> None:
    assert math.isnan(auc([1, 2, 0, 0, 0], [0, 0, 0, 0, 0]))
    assert auc([3, 0, 0, 0, 0], [0, 0, 0, 0, 2]) == 1
    assert auc([0, 4, 0, 0, 0], [0, 9, 0, 0, 0]) == 0.5
