"""torch's global switches for one training, put back when it ends. Imports torch only when entered."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from midtrain_dagster.train.plan import TrainingPlan


@contextmanager
def torch_for(plan: TrainingPlan) -> Iterator[None]:
    """Threads, determinism and random state for `plan` inside, as they were before outside.

    Variables that torch reads when it loads are set first: idle threads sleep, so that two runs can share cores. On a GPU
    deterministic kernels cost speed and are not asked for; on a CPU they are what makes a resumed run equal bit by bit.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    from torch.utils import deterministic
    from transformers.utils import logging

    threads, fill = torch.get_num_threads(), deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    exact, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    random, bar = torch.get_rng_state(), logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    if plan.threads:
        torch.set_num_threads(plan.threads)
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        with freed_memory_kept():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(exact, warn_only=warn)
        deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.set_rng_state(random)
        if bar:
            logging.enable_progress_bar()


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside, glibc keeps what is freed for the next allocation; outside, it gives large blocks back to the system at once.

    On a CPU every step frees and allocates gigabytes anew, and the kernel clears each page again: a conversion of 30 million
    numbers takes 7 ms in kept memory and 60 ms in fresh memory. Without glibc nothing changes.
    """
    libc = None
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        if libc is not None:
            libc.mallopt(M_MMAP_MAX, 65536)
            libc.mallopt(M_TRIM_THRESHOLD, 1 << 17)
            libc.malloc_trim(0)
