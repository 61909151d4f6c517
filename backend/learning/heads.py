"""Linear heads on frozen embeddings: all heads and all their repeats fitted in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from backend.learning import device as devices
from backend.learning.arrays import Float32, Members, Rows, Targets, Weights
from backend.learning.balance import class_weights
from tasks.schema import Head

RIDGE = 250.0
"""What the squared weights cost, in rows: the penalty is RIDGE / (2 n) |w|^2 beside a mean loss over n rows."""
BIAS_RIDGE = 1e-5
"""Keeps the bias of a class that never occurs finite."""
ITERATIONS = 30
SAMPLE = 20_000


@dataclass(frozen=True)
class LinearHeads:
    """S repeats of linear heads on embeddings of dimension D; L is the sum of the heads' classes.

    mean, scale: (D,), of the embeddings trained on. weights: (S, L, D), bias: (S, L), for standardised
    embeddings, in the order of `names` and `sizes`. The bias undoes the class weights: logits are those
    of the training set's own class frequencies.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    mean: Float32
    scale: Float32
    weights: Float32
    bias: Float32


def fit(
    embeddings: Float32,
    targets: Targets,
    rows: Rows,
    heads: Sequence[Head],
    seeds: int,
    seed: int,
    groups: Sequence[str] | None = None,
    row_weights: Weights | None = None,
) -> LinearHeads:
    """Fit multinomial (multiple choice: binary) logistic regressions with a ridge on `embeddings[rows]`.

    embeddings: (N, D). targets: per head (N, C), NaN rows unlabelled. row_weights: per head (N,), what a label
    counts beside one of weight 1; 0 drops it. Classes are balanced within limits. With several `seeds` the
    repeats differ by a Bayesian bootstrap (Rubin 1981) over groups, or rows where none are given: exponential
    weights, for drawing with replacement would lose the two cases of a rare class. A head without any label gives
    equal probabilities. Full-batch L-BFGS; the heads and repeats share each product with the embeddings.
    """
    device = devices.choose()
    taken = embeddings[rows]
    mean, scale = taken.mean(axis=0), taken.std(axis=0)
    scale[scale < 1e-6] = 1.0
    x = torch.from_numpy(taken).to(device, copy=True)
    x.sub_(torch.from_numpy(mean).to(device)).div_(torch.from_numpy(scale).to(device))

    sizes = [len(head.classes) for head in heads]
    repeats = torch.from_numpy(_bootstrap(rows, seeds, seed, groups)).to(device)
    problems, priors = [], []
    for head in heads:
        truth = targets[head.name][rows]
        counts = None if row_weights is None else row_weights[head.name][rows]
        weights = class_weights(truth, head.multiple, counts)
        priors.append(np.log(weights))
        problems.append(_problem(truth, weights, repeats, counts, head.multiple, device))

    # Steps are taken in coordinates in which the penalised loss is nearly round: some 20 of them do
    # instead of hundreds. A sample of the rows is enough for that, for it does not move the minimum.
    basis = _round_basis(x, RIDGE / max(1, len(x)))
    outputs = sum(sizes)
    turned = torch.zeros((x.shape[1], seeds * outputs), device=device, requires_grad=True)
    bias = torch.zeros(seeds * outputs, device=device, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [turned, bias], max_iter=ITERATIONS, tolerance_grad=1e-6, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        weights = basis @ turned
        logits = (x @ weights + bias).view(len(x), seeds, outputs)
        penalties = weights.square().view(-1, seeds, outputs).sum(dim=0)
        total = BIAS_RIDGE / 2 * bias.square().sum()
        for problem, scores, penalty in zip(
            problems, torch.split(logits, sizes, dim=2), torch.split(penalties, sizes, dim=1), strict=True
        ):
            total = total + problem.loss(scores) + (problem.ridge * penalty.sum(dim=1)).sum() / 2
        torch.autograd.backward(total)
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        fitted = (basis @ turned).T.reshape(seeds, outputs, -1).contiguous()
        corrected = bias.view(seeds, outputs) - torch.from_numpy(np.concatenate(priors)).to(device)
    return LinearHeads(
        names=tuple(head.name for head in heads),
        sizes=tuple(sizes),
        mean=mean,
        scale=scale,
        weights=fitted.cpu().numpy(),
        bias=corrected.cpu().numpy(),
    )


def predict_logits(heads: LinearHeads, embeddings: Float32) -> Members:
    """Uncalibrated logits, per head (S, N, C), for embeddings (N, D)."""
    seeds, outputs, dimension = heads.weights.shape
    flat = heads.weights.reshape(-1, dimension) / heads.scale
    offset = heads.bias.reshape(-1) - flat @ heads.mean
    logits = (embeddings @ flat.T + offset).reshape(len(embeddings), seeds, outputs).transpose(1, 0, 2)
    parts = np.split(logits, np.cumsum(heads.sizes)[:-1], axis=2)
    return {name: np.ascontiguousarray(part) for name, part in zip(heads.names, parts, strict=True)}


@dataclass(frozen=True)
class _Problem:
    """One head's loss over the rows that have a label, for all repeats."""

    known: Tensor  # (n,) rows with a label
    truth: Tensor  # (n, C)
    row_weights: Tensor  # (n, S), summing to 1 over the rows
    class_weights: Tensor  # (C,)
    ridge: Tensor  # (S,)
    multiple: bool

    def loss(self, logits: Tensor) -> Tensor:
        """Summed over the repeats, from logits (N, S, C)."""
        if not len(self.known):
            return logits.sum() * 0
        scores, truth = logits[self.known], self.truth[:, None, :]
        if self.multiple:
            each = functional.binary_cross_entropy_with_logits(
                scores, truth.expand_as(scores), pos_weight=self.class_weights, reduction="none"
            ).sum(dim=2)
        else:
            each = -(truth * self.class_weights * scores.log_softmax(dim=2)).sum(dim=2)
        return (each * self.row_weights).sum()


def _problem(
    truth: Float32, weights: Float32, repeats: Tensor, counts: Float32 | None, multiple: bool, device: torch.device
) -> _Problem:
    known = torch.from_numpy(np.flatnonzero(~np.isnan(truth).any(axis=1))).to(device)
    row_weights = repeats[known]
    if counts is not None:
        row_weights = row_weights * torch.from_numpy(counts).to(device)[known, None]
    total = row_weights.sum(dim=0)
    return _Problem(
        known=known,
        truth=torch.from_numpy(np.ascontiguousarray(truth)).to(device)[known],
        row_weights=row_weights / total.clamp(min=1e-12),
        class_weights=torch.from_numpy(weights).to(device),
        ridge=RIDGE / total.clamp(min=1.0),
        multiple=multiple,
    )


def _bootstrap(rows: Rows, seeds: int, seed: int, groups: Sequence[str] | None) -> Float32:
    """Weights (n, S) of each row in each repeat, 1 on average; all 1 where there is a single repeat."""
    if seeds == 1:
        return np.ones((len(rows), 1), dtype=np.float32)
    if groups is None:
        units, unit_of_row = rows, np.arange(len(rows))
    else:
        units, unit_of_row = np.unique(np.asarray(groups, dtype=object)[rows].astype(str), return_inverse=True)
    drawn = np.random.default_rng(seed).exponential(size=(len(units), seeds)).astype(np.float32)
    weights: Float32 = (drawn / drawn.mean(axis=0))[unit_of_row]
    return weights


def _round_basis(x: Tensor, ridge: float) -> Tensor:
    """(D, D) matrix P such that the loss in u, with weights w = P u, has a Hessian near the identity.

    A logistic loss curves as p (1 - p) times the covariance, here taken as an eighth of it.
    """
    sample = x[:: max(1, len(x) // SAMPLE)]
    ridge = max(ridge, 1e-8)
    # The ridge before the decomposition: of nothing but rounding errors, as equal images leave, LAPACK may make NaN.
    curvature, vectors = torch.linalg.eigh(
        sample.T @ sample / (8 * max(1, len(sample))) + ridge * torch.eye(x.shape[1], device=x.device)
    )
    curvature = curvature.clamp(min=ridge)
    return torch.div(vectors, curvature.sqrt())
