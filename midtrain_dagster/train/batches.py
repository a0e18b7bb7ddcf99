"""Which sequences a step reads, and how ranks and micro-batches share them. Imported only inside functions (it imports torch)."""

from collections.abc import Iterator

import numpy as np
import torch  # noqa: TID253
from torch import Tensor  # noqa: TID253

from midtrain_dagster.sequences import Sequences


def rows_of_step(offsets: np.ndarray, step: int, count: int) -> np.ndarray:
    """Sequence numbers of one step, in reading order; the data repeats from its beginning."""
    return np.arange(offsets[step], offsets[step + 1]) % count


def micro_batches(
    sequences: Sequences, rows: np.ndarray, micro: int, rank: int, world: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """This rank's share of `rows`, `micro` at a time.

    Every rank gets the same number of micro-batches, because under FSDP each is a collective; one that runs out of rows
    reads a row again with no target in it.
    """
    mine = rows[rank::world]
    rounds = -(-(-(-len(rows) // world)) // micro)
    for number in range(rounds):
        chosen = mine[number * micro : (number + 1) * micro]
        arrays = sequences.batch(chosen if len(chosen) else rows[:1])
        if not len(chosen):
            arrays["target"][:] = False
        yield {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}


def targets_of(sequences: Sequences, rows: np.ndarray) -> int:
    """How many tokens of these sequences count in the loss."""
    return int(sequences.batch(rows)["target"][:, 1:].sum())
