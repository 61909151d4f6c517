import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from backend.learning import heads
from backend.learning.balance import class_weights
from tasks.schema import Head


def control(name: str, count: int, multiple: bool = False) -> Head:
    classes = tuple(f"c{index}" for index in range(count))
    return Head(name, "image", "multiple" if multiple else "single", classes, 0.5, False, None, None, True)


HEADS = [control("three", 3), control("ticks", 4, multiple=True)]


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 12)) * np.geomspace(0.1, 30, 12) + 5
    signal = (x - x.mean(axis=0)) / x.std(axis=0)
    three = (signal @ rng.normal(size=(12, 3)) + [2.5, 0, -2] + 2 * rng.normal(size=(500, 3))).argmax(axis=1)
    ticks = signal @ rng.normal(size=(12, 4)) + 2 * rng.normal(size=(500, 4)) > [1, 0, 3, 8]
    targets = {"three": np.eye(3, dtype=np.float32)[three], "ticks": ticks.astype(np.float32)}
    return x.astype(np.float32), targets


def fitted(x: np.ndarray, targets: dict[str, np.ndarray], rows: np.ndarray, seeds: int = 1, **more: object):
    return heads.fit(x, targets, rows, HEADS, seeds, seed=3, **more)


def expected(x: np.ndarray, y: np.ndarray, rows: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """scikit-learn's balanced, ridge-penalised probabilities with the balance taken out again."""
    scaler = StandardScaler().fit(x[rows])
    total = len(rows) if weights is None else weights[rows].sum()
    model = LogisticRegression(C=1 / heads.RIDGE * len(rows) / total, tol=1e-8, max_iter=5000)
    one_hot = np.eye(y.max() + 1, dtype=np.float32)[y]
    balance = class_weights(one_hot[rows], False, None if weights is None else weights[rows])
    sample = balance[y[rows]] * (1 if weights is None else weights[rows]) * total / len(rows)
    model.fit(scaler.transform(x[rows]), y[rows], sample_weight=sample)
    logits = model.decision_function(scaler.transform(x))
    if logits.ndim == 1:
        return expit(logits - np.log(balance[1] / balance[0]))
    return softmax(logits - np.log(balance), axis=1)


def test_one_repeat_is_logistic_regression(data: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    x, targets = data
    rows = np.arange(0, 400)
    found = heads.predict_logits(fitted(x, targets, rows), x)
    assert found["three"].shape == (1, 500, 3) and found["ticks"].dtype == np.float32
    three = expected(x, targets["three"].argmax(axis=1), rows)
    assert np.abs(softmax(found["three"][0], axis=1) - three).max() < 0.01


def test_each_tick_is_a_logistic_regression_of_its_own(data: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    x, targets = data
    rows = np.arange(100, 500)
    found = expit(heads.predict_logits(fitted(x, targets, rows), x)["ticks"][0])
    scaler = StandardScaler().fit(x[rows])
    for index, weight in enumerate(class_weights(targets["ticks"][rows], multiple=True)):
        y = targets["ticks"][:, index]
        model = LogisticRegression(C=1 / heads.RIDGE, class_weight={0: 1, 1: weight}, tol=1e-8, max_iter=5000)
        logits = model.fit(scaler.transform(x[rows]), y[rows]).decision_function(scaler.transform(x))
        assert np.abs(found[:, index] - expit(logits - np.log(weight))).max() < 0.01


def test_probabilities_keep_the_training_frequencies(data: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    x, targets = data
    found = heads.predict_logits(fitted(x, targets, np.arange(500)), x)
    frequencies = targets["three"].mean(axis=0)
    assert frequencies.min() < 0.2
    assert np.allclose(softmax(found["three"][0], axis=1).mean(axis=0), frequencies, atol=0.06)


def test_unlabelled_rows_and_zero_weights_are_as_absent(data: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    x, targets = data
    alone = fitted(x, targets, np.arange(300))
    masked = {name: truth.copy() for name, truth in targets.items()}
    for truth in masked.values():
        truth[300:] = np.nan
    # The scale of the embeddings is the only thing that rows without labels decide.
    nearly = fitted(np.concatenate([x[:300], x[:200]]), masked, np.arange(500))
    assert np.allclose(
        softmax(heads.predict_logits(alone, x)["three"], axis=2),
        softmax(heads.predict_logits(nearly, x)["three"], axis=2),
        atol=0.03,
    )
    weights = {name: np.ones(500, dtype=np.float32) for name in targets}
    for counts in weights.values():
        counts[300:] = 0
    dropped = fitted(np.concatenate([x[:300], x[:200]]), targets, np.arange(500), row_weights=weights)
    flipped = {name: np.concatenate([truth[:300], truth[300:][::-1]]) for name, truth in targets.items()}
    same = fitted(np.concatenate([x[:300], x[:200]]), flipped, np.arange(500), row_weights=weights)
    assert np.allclose(dropped.weights, same.weights, atol=1e-3)


def test_each_head_weighs_rows_its_own_way(data: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    x, targets = data
    rng, rows = np.random.default_rng(1), np.arange(500)
    weights = {name: rng.choice([0.0, 0.2, 0.5, 1.0], 500).astype(np.float32) for name in targets}
    found = heads.predict_logits(fitted(x, targets, rows, row_weights=weights), x)
    three = expected(x, targets["three"].argmax(axis=1), rows, weights["three"])
    assert np.abs(softmax(found["three"][0], axis=1) - three).max() < 0.01
    scaler = StandardScaler().fit(x)
    balance = class_weights(targets["ticks"], True, weights["ticks"])
    for index, weight in enumerate(balance):
        y = targets["ticks"][:, index]
        model = LogisticRegression(C=1 / heads.RIDGE, class_weight={0: 1, 1: weight}, tol=1e-8, max_iter=5000)
        model.fit(scaler.transform(x), y, sample_weight=weights["ticks"])
        logits = model.decision_function(scaler.transform(x))
        assert np.abs(expit(found["ticks"][0][:, index]) - expit(logits - np.log(weight))).max() < 0.01
    # A head is what it is without the others' weights.
    alone = fitted(x, targets, rows, row_weights=weights | {"ticks": np.ones(500, np.float32)})
    again = softmax(heads.predict_logits(alone, x)["three"][0], axis=1)
    assert np.abs(again - softmax(found["three"][0], axis=1)).max() < 0.01


def test_repeats_differ_by_group_and_are_repeatable(data: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    x, targets = data
    groups = [f"g{index // 5}" for index in range(500)]
    first = fitted(x, targets, np.arange(500), seeds=3, groups=groups)
    again = fitted(x, targets, np.arange(500), seeds=3, groups=groups)
    assert np.array_equal(first.weights, again.weights)
    logits = heads.predict_logits(first, x)["three"]
    spread = softmax(logits, axis=2).std(axis=0)
    assert logits.shape == (3, 500, 3) and 0.005 < spread.mean() < 0.1


def test_a_head_without_labels_says_nothing(data: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    x, targets = data
    silent = {"three": np.full_like(targets["three"], np.nan), "ticks": targets["ticks"]}
    found = heads.predict_logits(fitted(x, silent, np.arange(500), seeds=2), x)
    assert np.allclose(softmax(found["three"], axis=2), 1 / 3, atol=1e-4)
    assert np.isfinite(found["ticks"]).all()


def test_a_class_without_cases_stays_finite(data: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    x, targets = data
    rows = np.flatnonzero(targets["three"][:, 2] == 0)
    found = heads.predict_logits(fitted(x, targets, rows), x)["three"]
    assert np.isfinite(found).all() and softmax(found, axis=2)[..., 2].max() < 0.02


@pytest.mark.parametrize("seed", range(4))
def test_images_that_are_all_alike_leave_the_classes_frequencies(seed: int) -> None:
    """What their embeddings differ by is rounding, of whose covariance LAPACK made NaN, or an error."""
    rng = np.random.default_rng(seed)
    x = np.tile(np.maximum(rng.normal(size=512), 0).astype(np.float32) * np.float32(0.1), (60, 1))
    three = np.eye(3, dtype=np.float32)[rng.permutation(np.repeat([0, 0, 1, 2], 15))]
    ticks = np.full((60, 4), np.nan, dtype=np.float32)
    said = softmax(heads.predict_logits(fitted(x, {"three": three, "ticks": ticks}, np.arange(60)), x)["three"], axis=2)
    assert said.mean(axis=(0, 1)) == pytest.approx([0.5, 0.25, 0.25], abs=0.01)
