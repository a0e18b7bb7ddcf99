"""The packing loops, compiled: which sequence each piece goes to, and copying it there."""

import numba  # noqa: TID253
import numpy as np


@numba.njit(cache=True)
def best_fit(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Best fit over pieces in the order given (decreasing lengths for best-fit decreasing, arXiv 2404.10830).

    Each piece goes to the sequence with the least room that still holds it, the latest opened among equals; a new sequence
    is opened where none does. `lengths` are at most `capacity`. A tree over remaining room finds that sequence in
    O(log capacity). Returns (sequence of each piece, room left in each sequence).
    """
    n = len(lengths)
    leaves = 1
    while leaves < capacity + 1:
        leaves *= 2
    count = np.zeros(2 * leaves, np.int64)  # count[leaves + r]: open sequences with room r; parents: sums
    top = np.full(capacity + 1, -1, np.int64)  # latest sequence with room r
    below = np.empty(n, np.int64)  # the one before it with the same room
    room = np.empty(n, np.int64)
    where = np.empty(n, np.int64)
    opened = 0
    for i in range(n):
        need = lengths[i]
        node = leaves + need
        found = -1
        if count[node] > 0:
            found = need
        else:
            while node > 1:
                if node % 2 == 0 and count[node + 1] > 0:
                    node += 1
                    while node < leaves:
                        node = 2 * node if count[2 * node] > 0 else 2 * node + 1
                    found = node - leaves
                    break
                node //= 2
        if found >= 0:
            sequence = top[found]
            top[found] = below[sequence]
            node = leaves + found
            while node >= 1:
                count[node] -= 1
                node //= 2
        else:
            sequence = opened
            opened += 1
            room[sequence] = capacity
        room[sequence] -= need
        where[i] = sequence
        left = room[sequence]
        if left > 0:
            below[sequence] = top[left]
            top[left] = sequence
            node = leaves + left
            while node >= 1:
                count[node] += 1
                node //= 2
    return where, room[:opened]


@numba.njit(cache=True)
def copy_ranges(into: np.ndarray, starts: np.ndarray, source: np.ndarray, offsets: np.ndarray, lengths: np.ndarray) -> None:
    """into[starts[i] : starts[i] + lengths[i]] = source[offsets[i] : …] for every i; all one-dimensional."""
    for i in range(len(lengths)):
        begin, offset = starts[i], offsets[i]
        for k in range(lengths[i]):
            into[begin + k] = source[offset + k]
