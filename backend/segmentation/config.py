"""What learning to segment can be told: the encoder, its starting weights, and how much to train."""

from __future__ import annotations

from dataclasses import dataclass, replace

FEWER = 4  # times fewer steps where training goes on from U-Nets that know most of what they are shown


@dataclass(frozen=True)
class SegmentationConfig:
    """Settings of the U-Nets.

    `backbone`, `weights`, `folds` and `seed` as in LearningConfig; the backbone is the encoder. `crop`: the side in
    pixels of what a member sees in one training step, a multiple of 32; `tile` the same in prediction. `steps` of
    training, whatever the number of images: the time of a training is known before it starts.
    """

    backbone: str = "resnet18"
    weights: str = "hub"
    crop: int = 256
    tile: int = 512
    folds: int = 5
    steps: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, not {self.folds}: out-of-fold needs a fold to leave out")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        for name in ("crop", "tile"):
            side = getattr(self, name)
            if side < 32 or side % 32:
                raise ValueError(
                    f"{name} must be a multiple of 32 pixels, not {side}: the encoder halves it five times"
                )

    def going_on(self) -> SegmentationConfig:
        """For training on from U-Nets that this made."""
        return replace(self, steps=max(self.steps // FEWER, 1))
