"""How much of the hardware a run uses. Imported only inside functions (it imports torch)."""

import resource
import time
from functools import lru_cache

import torch  # noqa: TID253

from midtrain_dagster.train.models import CausalLM

DENSE_BF16 = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "GH200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "B200": 2250e12,
}
"""Dense bf16 FLOP/s by a part of the device's name, from the vendor's data sheets."""


def flops_per_token(model: CausalLM, length: int) -> float:
    """6·N + 12·layers·width·length for forward and backward (PaLM, 2204.02311, appendix B).

    N leaves out the input embedding, which multiplies nothing; tied, the same matrix is the output layer and counts once.
    """
    config = model.config
    parameters = sum(p.numel() for p in model.parameters())
    embedding = 0 if config.tie_word_embeddings else model.get_input_embeddings().weight.numel()
    return 6.0 * (parameters - embedding) + 12.0 * config.num_hidden_layers * config.hidden_size * length


def peak_flops(stated: float | None, device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the device: as stated, or known by its name, or those of a large matrix product, measured once."""
    if stated is not None:
        return stated
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for part, peak in DENSE_BF16.items() if part in name), None) or measured_flops(
        device, dtype, torch.get_num_threads()
    )


@lru_cache
def measured_flops(device: torch.device, dtype: torch.dtype, threads: int, size: int = 1024) -> float:
    """FLOP/s of the best of three products of square matrices with so many threads."""
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        a = a @ b / size
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


def memory_gigabytes(device: torch.device) -> float:
    """The most that was in use so far: of the device, or of this process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e9, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)
