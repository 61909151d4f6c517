from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from backend.learning.config import LearningConfig
from backend.learning.training import joint_loss, train_backbone
from tasks.schema import Head

CONFIG = LearningConfig(backbone="test_resnet", weights="scratch", image_size=32, epochs=2)
HEADS = [
    Head("three", "image", "single", ("a", "b", "c"), 0.9, False, None, None, True),
    Head("ticks", "image", "multiple", ("x", "y"), 0.1, False, None, None, True),
]
ONES = {"three": torch.ones(3), "ticks": torch.ones(2)}
EQUAL = {"three": torch.ones(12), "ticks": torch.ones(12)}


@pytest.fixture
def batch() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    chance = torch.Generator().manual_seed(0)
    three = torch.eye(3)[torch.randint(0, 3, (12,), generator=chance)]
    return torch.randn(12, 5, generator=chance), {"three": three, "ticks": torch.rand(12, 2, generator=chance).round()}


def test_loss_is_the_weighted_sum_of_scikit_learns(batch: tuple[torch.Tensor, dict[str, torch.Tensor]]) -> None:
    logits, truth = batch
    balance = {"three": torch.tensor([1.0, 2.0, 0.5]), "ticks": torch.ones(2)}
    three = log_loss(
        truth["three"].argmax(dim=1),
        logits[:, :3].double().softmax(dim=1),
        labels=[0, 1, 2],
        sample_weight=balance["three"][truth["three"].argmax(dim=1)],
    )
    ticks = np.mean([log_loss(truth["ticks"][:, c], logits[:, 3 + c].sigmoid(), labels=[0, 1]) for c in (0, 1)])
    assert float(joint_loss(logits, truth, HEADS, balance, EQUAL)) == pytest.approx(0.9 * three + 0.1 * ticks, rel=1e-5)


def test_missing_labels_are_masked(batch: tuple[torch.Tensor, dict[str, torch.Tensor]]) -> None:
    logits, truth = batch
    fewer = {name: counts[:5] for name, counts in EQUAL.items()}
    alone = joint_loss(logits[:5], {name: wanted[:5] for name, wanted in truth.items()}, HEADS, ONES, fewer)
    for wanted in truth.values():
        wanted[5:] = torch.nan
    logits = logits.requires_grad_()
    loss = joint_loss(logits, truth, HEADS, ONES, EQUAL)
    assert torch.isclose(loss, alone)
    loss.backward()
    assert logits.grad is not None and (logits.grad[5:] == 0).all() and logits.grad.isfinite().all()
    truth["three"][:] = torch.nan
    only_ticks = joint_loss(logits, truth, HEADS, ONES, EQUAL)
    assert only_ticks.isfinite() and only_ticks < loss


def test_rows_weigh_as_if_they_were_there_more_often(batch: tuple[torch.Tensor, dict[str, torch.Tensor]]) -> None:
    logits, truth = batch
    counts = torch.tensor([0, 2, 1, 1, 3, 0, 1, 2, 1, 1, 0, 1])
    balance = {"three": torch.tensor([1.0, 2.0, 0.5]), "ticks": torch.tensor([3.0, 1.0])}
    rows = torch.arange(12).repeat_interleave(counts)
    often = {name: torch.ones(len(rows)) for name in truth}
    expected = joint_loss(logits[rows], {name: y[rows] for name, y in truth.items()}, HEADS, balance, often)
    weights = {name: counts.float() for name in truth}
    assert torch.isclose(joint_loss(logits, truth, HEADS, balance, weights), expected)
    nobody = weights | {"three": torch.zeros(12)}
    assert joint_loss(logits, truth, HEADS, balance, nobody).isfinite()


def images(count: int = 64) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    targets = {"three": np.eye(3, dtype=np.float32)[rng.integers(0, 3, count)], "ticks": np.zeros((count, 2), "f4")}
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), targets


def weights_of(pixels: np.ndarray, targets: dict[str, np.ndarray], seed: int) -> torch.Tensor:
    trained = train_backbone(pixels, targets, np.arange(len(pixels)), HEADS, CONFIG, seed)
    return torch.cat([value.float().flatten().cpu() for value in trained.model.state_dict().values()])


@pytest.mark.skipif(torch.cuda.is_available(), reason="promised for the CPU only")
def test_one_seed_gives_one_result() -> None:
    pixels, targets = images()
    torch.manual_seed(1)
    first = weights_of(pixels, targets, seed=5)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(first, weights_of(pixels, targets, seed=5))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, weights_of(pixels, targets, seed=6))


@pytest.mark.skipif(torch.cuda.is_available(), reason="promised for the CPU only")
def test_rows_without_any_label_train_nothing() -> None:
    pixels, targets = images()
    expected = weights_of(pixels, targets, seed=0)
    more = np.concatenate([pixels, 255 - pixels])
    padded = {name: np.concatenate([one, np.full_like(one, np.nan)]) for name, one in targets.items()}
    assert torch.equal(expected, weights_of(more, padded, seed=0))


def test_it_learns_and_reports_each_batch() -> None:
    rng = np.random.default_rng(0)
    bright = rng.integers(0, 2, 128)
    pixels = np.clip(rng.normal(80 + 90 * bright[:, None, None, None], 30, (128, 32, 32, 3)), 0, 255).astype(np.uint8)
    head = [Head("bright", "image", "single", ("no", "yes"), 1.0, False, None, None, True)]
    seen: list[tuple[int, int]] = []
    config = replace(CONFIG, epochs=4)
    targets = {"bright": np.eye(2, dtype=np.float32)[bright]}
    train_backbone(pixels, targets, np.arange(128), head, config, 0, lambda done, total: seen.append((done, total)))
    assert seen == [(step, 16) for step in range(1, 17)]


def test_too_few_labels_are_refused() -> None:
    pixels, targets = images(3)
    for one_hot in targets.values():
        one_hot[1:] = np.nan
    with pytest.raises(ValueError, match="1 labelled images"):
        train_backbone(pixels, targets, np.arange(3), HEADS, CONFIG, 0)
