"""What a replay of a data folder learns with where the live loop's own learning would take hours."""

from typing import Any

from backend.learning import device
from backend.learning.backbone import with_reachable_weights
from backend.settings import Settings

SMALL: dict[str, Any] = {
    "backbone": "test_resnet",
    "weights": "scratch",
    "image_size": 64,
    "folds": 3,
    "head_seeds": 2,
    "epochs": 10,
}
"""As little as shows the differences between strategies; docs/evidence.md is made with it."""


def affordable(settings: Settings) -> tuple[Settings, str | None]:
    """The settings to replay with, and a sentence where they are not those that were asked for.

    Without an accelerator and without pretrained weights, every seed trains backbones from scratch: what nobody has set
    of SMALL's settings is SMALL's then.
    """
    free = {name: value for name, value in SMALL.items() if name not in settings.model_fields_set}
    if not free or device.choose().type != "cpu" or settings.weights not in ("hub", "scratch"):
        return settings, None
    _, missing = with_reachable_weights(settings.learning)
    if missing is None and settings.weights == "hub":
        return settings, None
    free["weights"] = "scratch"
    said = ", ".join(f"{name} {value}" for name, value in free.items())
    why = "there is neither an accelerator nor a backbone with pretrained weights"
    return settings.model_copy(update=free), f"Replaying with {said}, since {why}. SECOND_LOOK_... settings go before."
