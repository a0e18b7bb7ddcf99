# mypy: disable-error-code="no-untyped-def"
"""Kernels for Gopher's repeated n-grams (Rae et al., arXiv:2112.11446, table A1).

An n-gram can repeat only where both (n - 1)-grams inside it do, so each size looks only at what the one before left: in
prose a few percent of the words after three sizes. n-grams are equal when their words are (datatrove compares the words of
5-grams and more run together, so that "ab c" equals "a bc" there).
"""

from typing import NamedTuple

import numpy as np
from numba import njit  # noqa: TID253

from midtrain_dagster.clean.counting import first_of, mask_for, ratio
from midtrain_dagster.clean.kernels import mix

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Grams(NamedTuple):
    """Scratch of one document."""

    prefix: np.ndarray  # uint64: polynomial prefix hashes of the words, so that any n-gram's is one multiplication away
    windows: np.ndarray  # int32: first words of the n-grams that may repeat
    keys: np.ndarray  # uint64: their hashes
    first: np.ndarray  # int32: the first window of the same n-gram, as a position in `windows`
    counts: np.ndarray  # int32: how often, at the first
    again: np.ndarray  # uint8, a word: whether the n-gram there may repeat
    slots: np.ndarray  # int32


@njit(nogil=True)
def hash_windows(grams, total, size):
    """`keys` of the first `total` windows, and an empty table for them; returns the table's mask."""
    power = np.uint64(1)
    for _ in range(size):
        power *= MULTIPLIER
    for k in range(total):
        w = grams.windows[k]
        grams.keys[k] = mix(grams.prefix[w + size] - grams.prefix[w] * power)
    mask = mask_for(total)
    grams.slots[: mask + 1] = 0
    return mask


@njit(nogil=True)
def narrow(grams, total):
    """Keep the windows where this n-gram and the next word's may repeat; returns how many."""
    kept = 0
    for k in range(total):
        w = grams.windows[k]
        if grams.again[w] and grams.again[w + 1]:
            grams.windows[kept] = w
            kept += 1
        else:
            grams.again[w] = 0
    return kept


@njit(nogil=True)
def top(words, grams, total, count, size):
    """Characters of the most frequent n-gram (joined by single spaces) times how often; of equals the first counts."""
    if count < size:
        return 0
    best, where, mask = 1, 0, hash_windows(grams, total, size)
    for k in range(total):
        own = first_of(grams.keys, k, grams.slots, mask)
        grams.first[k] = own
        grams.counts[own] = 1 if own == k else grams.counts[own] + 1
    for k in range(total):
        if grams.counts[grams.first[k]] > best:
            best, where = grams.counts[grams.first[k]], grams.windows[k]
        grams.again[grams.windows[k]] = grams.counts[grams.first[k]] > 1
    length = size - 1
    for w in range(where, where + size):
        length += words.ends[w] - words.starts[w]
    return length * best


@njit(nogil=True)
def repeated(words, grams, total, size):
    """Characters in n-grams that occurred before, counted greedily from the left without overlap."""
    characters, free, mask = 0, 0, hash_windows(grams, total, size)
    for k in range(total):
        w = grams.windows[k]
        if w < free:
            continue
        if first_of(grams.keys, k, grams.slots, mask) != k:
            for i in range(w, w + size):
                characters += words.ends[i] - words.starts[i]
            free = w + size
    return characters


@njit(nogil=True)
def count_ngrams(n, words, count, grams, out):
    """Top 2-, 3-, 4-grams in out[0:3], repeated 5- to 10-grams in out[3:9], as shares of the `n` characters."""
    grams.prefix[0] = 0
    for w in range(count):
        grams.prefix[w + 1] = grams.prefix[w] * MULTIPLIER + words.hashes[w]
        grams.windows[w], grams.again[w] = w, 0
    grams.again[count] = 0
    total = max(count - 1, 0)
    for size in range(2, 5):
        out[size - 2] = ratio(top(words, grams, total, count, size), n)
        total = narrow(grams, total)
    for size in range(5, 11):
        out[size - 2] = ratio(repeated(words, grams, total, size), n)
        total = narrow(grams, total)
