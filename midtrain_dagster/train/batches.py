"""Which sequences a step reads, and how ranks and micro-batches share them.

Imported only inside functions, because it imports torch.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from math import ceil

import numpy as np
import torch  # noqa: TID253
from torch import Tensor  # noqa: TID253

from midtrain_dagster.sequences import Sequences


def sequences_between(begin: int, end: int, count: int, seed: int | None = None, borders: tuple[int, ...] = ()) -> np.ndarray:
    """Numbers of the sequences at places [begin, end) of the run's reading order; when all were read, the data repeats.

    Without a seed they come in the packed order, which may be a curriculum; with one, each epoch has its own random order, inside
    the stages that `borders` end.
    """
    places = np.arange(begin, end)
    if seed is None or not len(places):
        return places % count
    epochs, within = np.divmod(places, count)
    return np.concatenate([order_of_epoch(count, seed, int(e), borders)[within[epochs == e]] for e in np.unique(epochs)])


def rows_of_step(
    offsets: np.ndarray, step: int, count: int, seed: int | None = None, borders: tuple[int, ...] = ()
) -> np.ndarray:
    """Sequence numbers of one step."""
    return sequences_between(int(offsets[step]), int(offsets[step + 1]), count, seed, borders)


@lru_cache(maxsize=2)
def order_of_epoch(count: int, seed: int, epoch: int, borders: tuple[int, ...] = ()) -> np.ndarray:
    """A random order of `count` sequences that leaves none of them outside its stage."""
    random = np.random.default_rng([seed, epoch])
    edges = [0, *(border for border in borders if border < count), count]
    return np.concatenate([first + random.permutation(last - first) for first, last in pairwise(edges)])


def micro_batches(
    sequences: Sequences, rows: np.ndarray, micro: int, rank: int, world: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """This rank's share of `rows`, `micro` at a time.

    Every rank gets the same number of micro-batches, because under FSDP each is a collective; one that runs out of rows
    reads a row again with no target in it.
    """
    mine = rows[rank::world]
    rounds = ceil(ceil(len(rows) / world) / micro)
    for number in range(rounds):
        chosen = mine[number * micro : (number + 1) * micro]
        arrays = sequences.batch(chosen if len(chosen) else rows[:1])
        if not len(chosen):
            arrays["target"][:] = False
        yield {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}
