"""The cores of this machine, and work in compiled kernels spread over them by threads."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np

T = TypeVar("T")

LEAST = 1 << 18  # of what `offsets` count, for a thread: below, starting it costs more than it saves


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[int, int], T], offsets: np.ndarray, least: int = LEAST) -> list[T]:
    """`work(first, end)` over consecutive ranges of rows, in their order: a range a core, about equally long by `offsets` (rows + 1).

    For kernels that release Python's lock and whose rows know nothing of each other: how many ranges there are changes no result.
    """
    size = int(offsets[-1] - offsets[0])
    parts = max(1, min(cores(), size // least))
    edges = np.searchsorted(offsets, offsets[0] + np.arange(1, parts) * size // parts)
    bounds = np.unique(np.concatenate([[0], edges, [len(offsets) - 1]])).tolist()
    ranges = list(pairwise(bounds)) or [(0, 0)]
    if len(ranges) == 1:
        return [work(*ranges[0])]
    with ThreadPoolExecutor(len(ranges)) as pool:
        return list(pool.map(lambda ends: work(*ends), ranges))
