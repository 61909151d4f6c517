"""A weights file of somebody else's as the start of a backbone: a classifier, a prefix, grey images are allowed for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

COUNTER = "num_batches_tracked"  # of batch normalisation: used by no forward pass, and left out by some exporters
NAMED = 3  # tensors named in a message


class WeightsError(ValueError):
    """A weights file is missing, damaged or made for another backbone."""


def read_weights(path: str | Path, name: str, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a .safetensors file for the backbone `name`, whose own are `wanted`.

    What the file has beyond those (a classifier) does no harm. Its names may carry one prefix ("backbone.",
    "module.model."). A first convolution for grey images is spread over three channels, which gives the same features
    for a grey image. Everything else has to be there and to fit, for a backbone that is part random is worth nothing.

    Raises WeightsError, which names the file, the backbone, and how many tensors fit.
    """
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read as a .safetensors file of {name}: {error}") from error
    stored = _without_prefix(stored, wanted)
    found, missing, misshapen = dict[str, Tensor](), list[str](), list[str]()
    for key, own in wanted.items():
        value = stored.get(key)
        if value is None and key.endswith(COUNTER):
            value = own
        elif value is not None and _is_grey(value, own):
            value = value.repeat_interleave(3, dim=1) / 3
        if value is None:
            missing.append(key)
        elif value.shape != own.shape:
            misshapen.append(f"{key} {tuple(value.shape)} for {tuple(own.shape)}")
        else:
            found[key] = value
    if missing or misshapen:
        needed = [key for key in wanted if not key.endswith(COUNTER)]
        fit = sum(key in found for key in needed)
        raise WeightsError(
            f"{path} does not fit {name}: {fit} of its {len(needed)} tensors fit"
            + _listed("it lacks", missing)
            + _listed("other shapes", misshapen)
        )
    return found


def _without_prefix(stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut off the prefix under which most of the wanted names are found."""
    prefixes = {
        key.removesuffix(name)
        for name in list(wanted)[:NAMED]
        for key in stored
        if key == name or key.endswith(f".{name}")
    }
    best = max(sorted(prefixes), key=lambda prefix: sum(prefix + name in stored for name in wanted), default="")
    return {key.removeprefix(best): value for key, value in stored.items() if key.startswith(best)}


def _is_grey(value: Tensor, own: Tensor) -> bool:
    return own.ndim == 4 and own.shape[1] == 3 and value.shape == (own.shape[0], 1, *own.shape[2:])


def _listed(what: str, items: list[str]) -> str:
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return f"; {what}: {', '.join(items[:NAMED])}{more}" if items else ""
