import torch

from backend.learning import device


def test_cuda_is_chosen_where_there_is_one() -> None:
    assert device.choose().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_half_precision_follows_the_hardware() -> None:
    chosen = device.choose()
    layer = torch.nn.Linear(4, 4).to(chosen)
    with device.half_precision(chosen):
        found = layer(torch.ones(1, 4, device=chosen)).dtype
    supported = chosen.type == "cuda" or any(
        torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16")
    )
    assert found == (torch.bfloat16 if supported else torch.float32)
