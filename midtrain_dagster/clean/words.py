# mypy: disable-error-code="no-untyped-def"
"""The words of a document, each with its hash and shape; chunks between spaces that come again are not cut again."""

from typing import NamedTuple

import numpy as np
from numba import njit  # noqa: TID253

from midtrain_dagster.clean import characters as c
from midtrain_dagster.clean.kernels import borrowed, emit_exception, find, hash_points, split_chunk

ALPHA, SPACE, PUNCTUATION, TERMINAL, UNICODE = c.ALPHA, c.SPACE, c.PUNCTUATION, c.TERMINAL, c.UNICODE_PUNCTUATION

# What a word is, as bits of its shape.
NONSYMBOL = 1  # holds anything but punctuation
LETTERS = 2  # holds a letter
STOP = 4  # one character that ends a sentence
SIGNS = 8  # nothing but Unicode punctuation
FIRST = 16  # begins what stands between two spaces

SLOTS = 32768
KEPT = 8  # words of a chunk that the cache keeps; a chunk of more is cut each time
LONGEST = 127  # characters of such a chunk


class Rules(NamedTuple):
    """What words are cut by: see `contractions`."""

    keys: np.ndarray
    splits: np.ndarray
    units: np.ndarray


class Words(NamedTuple):
    """Scratch for the words of one document, as long as the longest."""

    starts: np.ndarray  # int32, code points
    ends: np.ndarray  # int32
    hashes: np.ndarray  # uint64
    shapes: np.ndarray  # uint8
    suffixes: np.ndarray  # int32, of one chunk


class Chunks(NamedTuple):
    """A direct-mapped cache of chunks: hash of the chunk, how many words, and of each word its end, hash and shape."""

    keys: np.ndarray  # (SLOTS,) uint64
    counts: np.ndarray  # (SLOTS,) uint8
    ends: np.ndarray  # (SLOTS * KEPT,) uint8
    hashes: np.ndarray  # (SLOTS * KEPT,) uint64
    shapes: np.ndarray  # (SLOTS * KEPT,) uint8


@njit(nogil=True)
def lend(arrays):
    """The five arrays of `Words` or `Chunks`, borrowed."""
    return borrowed(arrays[0]), borrowed(arrays[1]), borrowed(arrays[2]), borrowed(arrays[3]), borrowed(arrays[4])


@njit(nogil=True)
def shape(points, flags, a, b):
    """The bits of a word."""
    every, some, outside = UNICODE, 0, False
    for i in range(a, b):
        every &= flags[i]
        some |= flags[i]
        outside |= flags[i] & PUNCTUATION == 0
    bits = NONSYMBOL if outside else 0
    bits |= LETTERS if some & ALPHA else 0
    bits |= SIGNS if every else 0
    return bits | (STOP if b - a == 1 and some & TERMINAL else 0)


@njit(nogil=True)
def cut(points, flags, a, b, key, rules, words, cache, count):
    """The words of the chunk `points[a:b]` of hash `key`, from the cache or into it; returns the new count."""
    slot = np.int64(key >> np.uint64(20)) & (SLOTS - 1)
    if cache.keys[slot] == key:
        start, at = a, slot * KEPT
        for k in range(at, at + cache.counts[slot]):
            end = a + cache.ends[k]
            words.starts[count], words.ends[count] = start, end
            words.hashes[count], words.shapes[count] = cache.hashes[k], cache.shapes[k]
            start, count = end, count + 1
        return count
    first = count
    count = split_chunk(
        points, flags, a, b, rules.keys, rules.splits, rules.units, words.suffixes, words.starts, words.ends, count
    )
    describe(points, flags, first, count, words)
    if count - first <= KEPT and b - a <= LONGEST:
        cache.keys[slot], cache.counts[slot] = key, count - first
        for w in range(first, count):
            k = slot * KEPT + w - first
            cache.ends[k], cache.hashes[k], cache.shapes[k] = words.ends[w] - a, words.hashes[w], words.shapes[w]
    return count


@njit(nogil=True)
def describe(points, flags, first, count, words):
    """Hash and shape of the words of one chunk."""
    for w in range(first, count):
        words.hashes[w] = hash_points(points, words.starts[w], words.ends[w])
        words.shapes[w] = shape(points, flags, words.starts[w], words.ends[w]) | (FIRST if w == first else 0)


@njit(nogil=True)
def split(points, flags, n, rules, words, cache):
    """Fill `words` with those of a decoded document; returns how many. Scratch arrays hold n + 1."""
    count, i = 0, 0
    while i < n:
        if flags[i] & SPACE:
            i += 1
            continue
        a, plain = i, ALPHA
        while i < n and not flags[i] & SPACE:
            plain &= flags[i]
            i += 1
        key = hash_points(points, a, i)
        if not plain:
            count = cut(points, flags, a, i, key, rules, words, cache, count)
            continue
        first, last, bits = points[a], points[i - 1], 0
        if i - a <= 12 and (first > 127 or last > 127 or rules.splits[rules.keys.size + first * 128 + last]):
            bits = find(key, rules.keys, rules.splits)
        if bits > 1:
            before = count
            count = emit_exception(bits, a, i, words.starts, words.ends, count)
            describe(points, flags, before, count, words)
        else:
            words.starts[count], words.ends[count] = a, i
            words.hashes[count], words.shapes[count] = key, NONSYMBOL | LETTERS | FIRST
            count += 1
    return count
