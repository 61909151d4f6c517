"""Train a backbone on the labels of all heads together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from backend.learning import device as devices
from backend.learning.arrays import Pixels, Rows, Targets, Weights
from backend.learning.augment import augment
from backend.learning.backbone import Backbone, Progress, create
from backend.learning.balance import class_weights
from backend.learning.config import LearningConfig
from tasks.schema import Head

BATCH = 32
WEIGHT_DECAY = 0.05
PEAK_RATE = {True: 5e-4, False: 2e-3}
"""Highest learning rate, by whether the backbone starts from pretrained weights."""


def train_backbone(
    pixels: Pixels,
    targets: Targets,
    rows: Rows,
    heads: Sequence[Head],
    config: LearningConfig,
    seed: int,
    progress: Progress | None = None,
    row_weights: Weights | None = None,
) -> Backbone:
    """Train one network, with a linear output per head, on the given rows and nothing else.

    targets: per head (N, C) over all pixels, NaN rows where there is no label. row_weights: per head (N,), as in
    `heads.fit`. Only the `rows` of these arrays are ever read. Repeatable on a CPU for one seed and number of
    threads. Raises what `create` raises, and ValueError where fewer than two of the rows have a label.
    """
    rows = np.array([row for row in rows if any(not np.isnan(targets[head.name][row]).any() for head in heads)])
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} labelled images: a backbone cannot be trained on fewer than 2")
    backbone = create(config, seed)
    device = next(backbone.model.parameters()).device
    labels = {head.name: torch.from_numpy(np.ascontiguousarray(targets[head.name])) for head in heads}
    if row_weights is None:
        row_weights = {head.name: np.ones(len(targets[head.name]), dtype=np.float32) for head in heads}
    counts = {head.name: torch.from_numpy(row_weights[head.name]) for head in heads}
    balance = {
        head.name: torch.from_numpy(
            class_weights(targets[head.name][rows], head.multiple, row_weights[head.name][rows])
        ).to(device)
        for head in heads
    }
    chance = torch.Generator().manual_seed(seed)
    batch = min(BATCH, len(rows))
    steps = config.epochs * (len(rows) // batch)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        outputs = nn.Linear(backbone.dimension, sum(len(head.classes) for head in heads)).to(device)
        parameters = [*backbone.model.parameters(), *outputs.parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE[backbone.pretrained], total_steps=steps)
        backbone.model.train()
        for step, chosen in enumerate(_batches(rows, batch, config.epochs, chance), start=1):
            images = augment(backbone.normalised(torch.from_numpy(np.array(pixels[chosen]))), chance)
            with devices.half_precision(device):
                logits = outputs(backbone.model(images))
            truth = {name: label[chosen].to(device) for name, label in labels.items()}
            weights = {name: count[chosen].to(device) for name, count in counts.items()}
            loss = joint_loss(logits.float(), truth, heads, balance, weights)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            if progress:
                progress(step, steps)
    if not all(bool(parameter.isfinite().all()) for parameter in backbone.model.parameters()):
        raise FloatingPointError("training the backbone diverged: its weights are no longer numbers")
    backbone.model.eval()
    return backbone


def _batches(rows: Rows, batch: int, epochs: int, chance: torch.Generator) -> Iterator[Rows]:
    """Whole batches only: normalising over a remainder of one image would fail."""
    for _ in range(epochs):
        shuffled = rows[torch.randperm(len(rows), generator=chance).numpy()]
        for start in range(0, len(rows) - batch + 1, batch):
            yield shuffled[start : start + batch]


def joint_loss(
    logits: Tensor,
    truth: Mapping[str, Tensor],
    heads: Sequence[Head],
    balance: Mapping[str, Tensor],
    row_weights: Mapping[str, Tensor],
) -> Tensor:
    """The weighted sum of the heads' losses over a batch; heads without a label in it add nothing.

    logits: (B, sum of classes) in the order of the heads. truth, per head: (B, C), NaN rows unlabelled.
    row_weights, per head: (B,), 0 for rows that count for nothing. Cross-entropy for single choice and ratings,
    the mean of the classes' binary ones for multiple choice; a mean over rows, by their weights.
    """
    total = logits.sum() * 0
    parts = torch.split(logits, [len(head.classes) for head in heads], dim=1)
    for head, scores in zip(heads, parts, strict=True):
        wanted = truth[head.name]
        known = ~wanted.isnan().any(dim=1) & (row_weights[head.name] > 0)
        if not known.any():
            continue
        scores, wanted, weights = scores[known], wanted[known], balance[head.name]
        counts = row_weights[head.name][known]
        if head.multiple:
            each = functional.binary_cross_entropy_with_logits(scores, wanted, pos_weight=weights, reduction="none")
            loss = counts @ each.mean(dim=1) / counts.sum()
        else:
            each = functional.cross_entropy(scores, wanted, weight=weights, reduction="none")
            loss = counts @ each / (counts @ (wanted @ weights))
        total = total + head.weight * loss
    return total
