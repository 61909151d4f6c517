"""Checks of the machine that doctor runs on (run it where the worker runs), and looking at that machine."""

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx

from backend.doctor.findings import Fault, error, known, warning
from backend.doctor.observed import Facts, Machine
from backend.settings import Settings

LITTLE = 2_000_000_000  # bytes; a version with its embeddings takes some 100 MB
ENOUGH = 10_000_000_000


def observe(settings: Settings) -> Machine:
    """Look at this machine; a GPU is tried with a small sum."""
    import torch

    driver = Path("/proc/driver/nvidia/version")
    gpus = tuple(str(path) for path in sorted(Path("/dev").glob("nvidia[0-9]*")))
    folder = settings.state_dir.resolve()
    while not folder.exists():
        folder = folder.parent
    return Machine(
        gpus=gpus or (("nvidia-smi",) if shutil.which("nvidia-smi") else ()),
        driver=driver.read_text().splitlines()[0] if driver.exists() else "",
        torch=torch.__version__,
        torch_cuda=torch.version.cuda,
        cuda_trouble=_try_cuda(),
        weights_trouble=_try_weights(settings),
        state_dir_writable=os.access(folder, os.W_OK | os.X_OK),
        disk_free=shutil.disk_usage(folder).free,
    )


def _try_cuda() -> str | None:
    """Why a sum on the GPU does not work; None where it does."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            if torch.cuda.is_available():
                torch.ones(8, device="cuda").sum().item()
                return None
        except RuntimeError as fault:  # no kernels for this GPU, no memory left on it
            return str(fault).splitlines()[0]
    return "; ".join(str(item.message).splitlines()[0] for item in said) or "torch.cuda.is_available() is False"


def _try_weights(settings: Settings) -> str | None:
    """Why training cannot start from the weights that are asked for; None where it can."""
    if settings.weights == "scratch":
        return None
    if settings.weights != "hub":
        return None if Path(settings.weights).is_file() else f"there is no file {settings.weights}"
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    from backend.learning.backbone import HUB_TIMEOUT_S

    if not timm.is_model(settings.backbone):
        return f"timm knows no backbone called {settings.backbone!r}"
    source = timm.get_pretrained_cfg(settings.backbone)
    if source is not None and source.hf_hub_id:
        for name in ("model.safetensors", "pytorch_model.bin"):
            if isinstance(try_to_load_from_cache(source.hf_hub_id, name), str):
                return None
    try:
        httpx.head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except httpx.HTTPError as fault:
        return f"{constants.ENDPOINT} cannot be reached ({fault})"
    return None


def gpu(seen: Facts) -> Iterator[Fault]:
    """torch can use the GPU, where there is one."""
    machine = known(seen.machine)
    if not machine.gpus or machine.cuda_trouble is None:
        return
    what = f"{', '.join(machine.gpus)} cannot be used by torch {machine.torch}: {machine.cuda_trouble}"
    if machine.torch_cuda is None:
        yield warning(f"{what} (a build for CPUs)", "install a CUDA build of torch: the README's installation says how")
    else:
        yield warning(
            f"{what} (built for CUDA {machine.torch_cuda}; driver: {machine.driver or 'none loaded'})",
            f"install an NVIDIA driver that supports CUDA {machine.torch_cuda}, or a torch built for an older CUDA; in"
            " a container, give it the GPU (--gpus all)",
        )


def weights(seen: Facts) -> Iterator[Fault]:
    """The backbone's pretrained weights can be had."""
    trouble, settings = known(seen.machine).weights_trouble, seen.settings
    if trouble is None:
        return
    if settings.weights == "hub":
        yield warning(
            f"no pretrained weights for {settings.backbone}: {trouble}. The backbone is trained from scratch, which"
            " needs more labels for the same accuracy",
            "let this machine reach the hub once, or set SECOND_LOOK_WEIGHTS to a .safetensors file of timm's weights;"
            " SECOND_LOOK_WEIGHTS=scratch says that it is meant",
        )
    else:
        yield error(f"SECOND_LOOK_WEIGHTS: {trouble}", "put the file there, or set SECOND_LOOK_WEIGHTS to another")


def disk(seen: Facts) -> Iterator[Fault]:
    """The state folder can be written, and its disk has room."""
    machine, folder = known(seen.machine), seen.settings.state_dir
    if not machine.state_dir_writable:
        yield error(
            f"the state folder {folder} cannot be written",
            "give this user the folder, or set SECOND_LOOK_STATE_DIR to another",
        )
    if machine.disk_free < ENOUGH:
        make = error if machine.disk_free < LITTLE else warning
        yield make(
            f"{machine.disk_free / 1e9:.1f} GB are left on the disk of the state folder {folder}",
            f"free some; SECOND_LOOK_IMAGE_CACHE_GB bounds the image cache (now {seen.settings.image_cache_gb:g} GB)",
        )
