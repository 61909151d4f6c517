"""A cross-fit made of parts of others on the same embeddings: heads that go on unchanged beside heads fitted anew."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backend.learning.arrays import Rows
from backend.learning.crossfit import CrossFit
from backend.learning.heads import LinearHeads


def select(fit: CrossFit, columns: Mapping[str, Rows]) -> CrossFit:
    """Only the heads in `columns`, each with its classes in the order of these columns (C,); bit for bit as they were.

    Raises KeyError for a head that `fit` does not have.
    """
    return CrossFit(
        folds=tuple(_select(heads, columns) for heads in fit.folds),
        temperatures={name: fit.temperatures[name] for name in columns},
        multiple={name: fit.multiple[name] for name in columns},
    )


def join(kept: CrossFit, fitted: CrossFit) -> CrossFit:
    """All heads of both; those of `kept` bit for bit as they were.

    A fold's heads share one standardisation of the embeddings, so the weights of `fitted` are restated in that of
    `kept`. With z = (x - mean) / scale the logits stay what they were under w' = w scale' / scale and
    b' = b + w (mean' - mean) / scale, where mean' and scale' are those of `kept`.
    Raises ValueError where both have a head of the same name, or a different number of folds.
    """
    if shared := kept.multiple.keys() & fitted.multiple.keys():
        raise ValueError(f"{', '.join(sorted(shared))} would be there twice")
    return CrossFit(
        folds=tuple(_join(first, second) for first, second in zip(kept.folds, fitted.folds, strict=True)),
        temperatures={**kept.temperatures, **fitted.temperatures},
        multiple={**kept.multiple, **fitted.multiple},
    )


def _select(heads: LinearHeads, columns: Mapping[str, Rows]) -> LinearHeads:
    starts = dict(zip(heads.names, np.cumsum([0, *heads.sizes[:-1]]), strict=True))
    outputs = np.concatenate([starts[name] + order for name, order in columns.items()])
    return LinearHeads(
        names=tuple(columns),
        sizes=tuple(len(order) for order in columns.values()),
        mean=heads.mean,
        scale=heads.scale,
        weights=np.ascontiguousarray(heads.weights[:, outputs]),
        bias=np.ascontiguousarray(heads.bias[:, outputs]),
    )


def _join(kept: LinearHeads, fitted: LinearHeads) -> LinearHeads:
    per_unit = fitted.weights.astype(np.float64) / fitted.scale
    moved = fitted.bias + per_unit @ (kept.mean.astype(np.float64) - fitted.mean)
    return LinearHeads(
        names=kept.names + fitted.names,
        sizes=kept.sizes + fitted.sizes,
        mean=kept.mean,
        scale=kept.scale,
        weights=np.concatenate([kept.weights, (per_unit * kept.scale).astype(np.float32)], axis=1),
        bias=np.concatenate([kept.bias, moved.astype(np.float32)], axis=1),
    )
