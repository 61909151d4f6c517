"""What learning can be told: the backbone, its starting weights, and how much to train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LearningConfig:
    """Settings of one cycle's learning.

    `weights`: "hub" (ImageNet weights through timm's hub loading), "scratch", or the path of a
    .safetensors file for this backbone. `mode`: "frozen" keeps the backbones and refits the heads,
    "full" trains one backbone per fold anew. `image_size` in pixels, `seed` makes CPU runs repeatable.
    `corrected_share`: of the labels, by the heads' weight, from which on frozen fold backbones are trained anew.
    """

    backbone: str = "efficientnet_b0"
    weights: str = "hub"
    image_size: int = 224
    mode: Literal["frozen", "full"] = "frozen"
    folds: int = 5
    head_seeds: int = 3
    epochs: int = 12
    seed: int = 0
    corrected_share: float = 0.03

    def __post_init__(self) -> None:
        if self.mode not in ("frozen", "full"):
            raise ValueError(f"learning mode must be 'frozen' or 'full', not {self.mode!r}")
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, not {self.folds}: out-of-fold needs a fold to leave out")
        for name in ("image_size", "head_seeds", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
