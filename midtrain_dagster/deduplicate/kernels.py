# mypy: disable-error-code="no-untyped-def"
"""Kernels: from UTF-8 buffers to MinHash signatures, and from edges to clusters.

A word is a run of letters and digits; in scripts without spaces (ideographs, kana, Thai and its neighbours) every
character is one.
"""

import numpy as np
from numba import njit  # noqa: TID253

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
FULL = np.uint32(0xFFFFFFFF)


@njit(nogil=True, cache=True, inline="always")
def mix(value):
    """Finish a 64-bit hash."""
    value ^= value >> np.uint64(32)
    value *= np.uint64(0xD6E8FEB86659FD93)
    value ^= value >> np.uint64(32)
    return value


@njit(nogil=True, cache=True)
def kind(point):
    """0: between words, 1: part of a word, 2: a word by itself. For code points from 128 up."""
    if point < 0xC0:
        return 1 if point == 0xAA or point == 0xB5 or point == 0xBA else 0
    if point == 0xD7 or point == 0xF7 or 0x2000 <= point <= 0x206F or 0x20A0 <= point <= 0x20CF or 0x2190 <= point <= 0x2BFF:
        return 0
    if 0x3000 <= point <= 0x3004 or 0x3008 <= point <= 0x3020 or 0xFF00 <= point <= 0xFF0F or 0xFF1A <= point <= 0xFF20:
        return 0
    if (
        0xFE10 <= point <= 0xFE6F
        or 0xE000 <= point <= 0xF8FF
        or 0x2E00 <= point <= 0x2E7F
        or point == 0xFEFF
        or point == 0xFFFD
    ):
        return 0
    if 0x0E00 <= point <= 0x0EFF or 0x1000 <= point <= 0x109F or 0x1780 <= point <= 0x17FF:
        return 2
    return 2 if 0x2E80 <= point <= 0x9FFF or 0xF900 <= point <= 0xFAFF or 0x20000 <= point <= 0x323AF else 1


@njit(nogil=True, cache=True)
def word_hashes(data, start, end, out):
    """64-bit hashes of the words of the lower-case UTF-8 `data[start:end]`; returns how many."""
    count, i, inside = 0, start, False
    value = MULTIPLIER
    while i < end:
        byte = np.int64(data[i])
        if byte < 0x80:
            i += 1
            if 97 <= byte <= 122 or 48 <= byte <= 57 or 65 <= byte <= 90:
                point, what = byte, 1
            else:
                point, what = byte, 0
        else:
            size = 2 if byte < 0xE0 else (3 if byte < 0xF0 else 4)
            point = byte & (0x1F if size == 2 else (0x0F if size == 3 else 0x07))
            for j in range(1, size):
                point = point << 6 | np.int64(data[i + j]) & 0x3F
            what, i = kind(point), i + size
        if inside and what != 1:
            out[count] = mix(value)
            count, inside, value = count + 1, False, MULTIPLIER
        if what:
            value = (value ^ np.uint64(point)) * np.uint64(0xFF51AFD7ED558CCD)
            value ^= value >> np.uint64(29)
            inside = True
        if what == 2:
            out[count] = mix(value)
            count, inside, value = count + 1, False, MULTIPLIER
    if inside:
        out[count] = mix(value)
        count += 1
    return count


@njit(nogil=True, cache=True, fastmath=True)
def minimum(shingles, count, flips, factors, least):
    """least[p] = min over shingles of (shingle xor flips[p]) * factors[p] mod 2^32: one MinHash a permutation."""
    least[:] = FULL
    for s in range(count):
        shingle = shingles[s]
        for p in range(least.size):
            value = np.uint32((shingle ^ flips[p]) * factors[p])
            least[p] = min(least[p], value)


@njit(nogil=True, cache=True)
def shingle(hashes, count, ngram, shingles):
    """32-bit hashes of the n-grams of words; returns how many (0 where there are fewer than n words)."""
    windows = count - ngram + 1
    for w in range(max(windows, 0)):
        value = np.uint64(0)
        for i in range(w, w + ngram):
            value = value * MULTIPLIER + hashes[i]
        shingles[w] = np.uint32(mix(value) >> np.uint64(32))
    return max(windows, 0)


@njit(nogil=True, cache=True)
def signatures(data, offsets, ngram, minimum_words, bands, rows, flips, factors, exact, words, banded, sketch):
    """Fill one row a document: exact hash, word count, band hashes and the low byte of each MinHash."""
    total, longest = offsets.size - 1, 0
    for d in range(total):
        longest = max(longest, offsets[d + 1] - offsets[d])
    hashes, shingles = np.empty(longest + 1, np.uint64), np.empty(longest + 1, np.uint32)
    least = np.empty(flips.size, np.uint32)
    for d in range(total):
        count = word_hashes(data, offsets[d], offsets[d + 1], hashes)
        value = MULTIPLIER
        for w in range(count):
            value = mix(value * MULTIPLIER + hashes[w])
        if count == 0:  # nothing but signs: those themselves
            for i in range(offsets[d], offsets[d + 1]):
                value = mix((value ^ np.uint64(data[i])) * MULTIPLIER)
        exact[d], words[d] = value, count
        windows = shingle(hashes, count, ngram, shingles)
        if count < minimum_words or windows == 0:
            words[d] = -count - 1  # no signature
            continue
        minimum(shingles, windows, flips, factors, least)
        for p in range(least.size):
            sketch[d, p] = np.uint8(least[p] >> np.uint32(8) & np.uint32(255))
        for b in range(bands):
            band = np.uint64(b + 1) * MULTIPLIER
            for r in range(b * rows, (b + 1) * rows):
                band = mix((band ^ np.uint64(least[r])) * np.uint64(0xFF51AFD7ED558CCD))
            banded[d, b] = band


@njit(nogil=True, cache=True)
def unite(parent, left, right):
    """Join the trees of both ends of each edge; a root is the smallest node of its tree."""
    for e in range(left.size):
        a, b = left[e], right[e]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a < b:
            parent[b] = a
        elif b < a:
            parent[a] = b


@njit(nogil=True, cache=True)
def flatten(parent):
    """Point every node at its root. A parent is never larger than its node, so one pass upwards does it."""
    for node in range(parent.size):
        parent[node] = parent[parent[node]]


def components(left, right, size):
    """(size,) the smallest node that each node is connected with, by union-find over the edges (left[i], right[i])."""
    parent = np.arange(size)
    unite(parent, left, right)
    flatten(parent)
    return parent
