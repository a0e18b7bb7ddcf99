# mypy: disable-error-code="no-untyped-def"
"""Kernels that count over a decoded document: words, lines, repeated lines and paragraphs.

Each writes its signals into one row of a float64 matrix at the positions of `signals.COLUMNS`. NaN: no denominator.
"""

import numpy as np
from numba import njit  # noqa: TID253

from midtrain_dagster.clean import characters as c
from midtrain_dagster.clean.kernels import hash_points, mix
from midtrain_dagster.clean.words import LETTERS, NONSYMBOL

SPACE, ALNUM, TERMINAL = c.SPACE, c.ALNUM, c.TERMINAL
NEWLINE, RETURN, DOT, ELLIPSIS, HASH = 10, 13, 46, 0x2026, 35


@njit(nogil=True)
def ratio(part, whole):
    """part / whole, NaN where there is no whole."""
    return part / whole if whole else np.nan


@njit(nogil=True)
def mask_for(n):
    """Size - 1 of a table that `n` keys fill at most half."""
    size = 16
    while size < 2 * n:
        size *= 2
    return size - 1


@njit(nogil=True)
def first_of(keys, k, slots, mask):
    """The first item with the key of item `k`, itself where it is new. `slots` (int32, zeros at first) holds item + 1."""
    slot = np.int64(keys[k]) & mask
    while slots[slot]:
        if keys[slots[slot] - 1] == keys[k]:
            return np.int64(slots[slot] - 1)
        slot = (slot + 1) & mask
    slots[slot] = k + 1
    return np.int64(k)


@njit(nogil=True)
def count_words(points, flags, n, words, count, stops, dotted, out):
    """Gopher's word statistics: out[0:9]. `stops`: hashes of the stop words; `dotted`: whether the text may hold an ellipsis."""
    nonsymbol, length, letters, seen = 0, 0, 0, 0
    for w in range(count):
        size, bits = words.ends[w] - words.starts[w], words.shapes[w]
        nonsymbol += bits & NONSYMBOL
        length += size * (bits & NONSYMBOL)
        letters += bits & LETTERS
        if bits & LETTERS and size <= 4:
            for s in range(stops.size):
                seen |= np.int64(words.hashes[w] == stops[s]) << s
    hashes, alphanumeric = 0, 0
    for i in range(n):
        hashes += points[i] == HASH
        alphanumeric += flags[i] & ALNUM
    ellipses = count_ellipses(points, n) if dotted else 0
    stop_words = 0
    for s in range(stops.size):
        stop_words += seen >> s & 1
    out[0], out[1], out[2] = n, count, nonsymbol
    out[3] = ratio(length, nonsymbol)
    out[4], out[5], out[6] = ratio(hashes, count), ratio(ellipses, count), ratio(letters // LETTERS, count)
    out[7], out[8] = stop_words, ratio(alphanumeric // ALNUM, n)


@njit(nogil=True)
def count_ellipses(points, n):
    """How often the text has "…" or "...", without overlap."""
    ellipses, i = 0, 0
    while i < n:
        if points[i] == ELLIPSIS:
            ellipses += 1
        elif points[i] == DOT and i + 2 < n and points[i + 1] == DOT and points[i + 2] == DOT:
            ellipses += 1
            i += 2
        i += 1
    return ellipses


@njit(nogil=True)
def trim(flags, a, b):
    """`a, b` without white space at both ends."""
    while a < b and flags[a] & SPACE:
        a += 1
    while b > a and flags[b - 1] & SPACE:
        b -= 1
    return a, b


@njit(nogil=True)
def count_lines(points, flags, n, breaks, found, out):
    """Gopher's bullets and ellipses over str.splitlines: out[0:3]."""
    total, bullets, ellipses, start = 0, 0, 0, 0
    for k in range(found + 1):
        end = breaks[k] if k < found else n
        if end < start or (k == found and start >= n):  # the second half of "\r\n", or nothing after the last break
            continue
        a, b = trim(flags, start, end)
        total += 1
        if a < b:
            bullets += points[a] == 0x2022 or points[a] == 45
            three = b - a >= 3 and points[b - 1] == DOT and points[b - 2] == DOT and points[b - 3] == DOT
            ellipses += three or points[b - 1] == ELLIPSIS
        start = end + 1
        if start < n and points[end] == RETURN and points[start] == NEWLINE:
            start += 1
    out[0], out[1], out[2] = total, ratio(bullets, total), ratio(ellipses, total)


@njit(nogil=True)
def count_repeated_lines(points, flags, n, breaks, found, words, keys, ends, slots, out):
    """Of lines between "\\n": lengths in out[3:5], Gopher's repeated lines in out[7:9], FineWeb's lines in out[9:13].

    Leaves the hash and the end of each line in `keys` and `ends`; returns how many lines. Gopher splits at runs of
    newlines, so of empty lines only one at the start and one at the end count.
    """
    total = 0
    for k in range(found):
        if points[breaks[k]] == NEWLINE:
            ends[total] = breaks[k]
            total += 1
    newlines = total
    ends[total] = n
    total += 1
    mask = mask_for(total)
    slots[: mask + 1] = 0
    longest, start, pieces, again, again_length = 0, 0, 0, 0, 0
    nonblank, terminal, short, nonblank_again = 0, 0, 0, 0
    for k in range(total):
        end = np.int64(ends[k])
        size = end - start
        longest = max(longest, size)
        keys[k] = hash_points(points, start, end)
        if size:
            seen = first_of(keys, k, slots, mask) != k
            pieces, again, again_length = pieces + 1, again + seen, again_length + seen * size
            a = start
            while a < end and flags[a] & SPACE:
                a += 1
            if a < end:
                nonblank += 1
                terminal += flags[end - 1] & TERMINAL
                short += size <= 30
                nonblank_again += seen * size
        start = end + 1
    edges = (n == 0) + (n > 0 and points[0] == NEWLINE) + (n > 0 and points[max(n - 1, 0)] == NEWLINE)
    out[3], out[4] = ratio(n - newlines, total) if n else np.nan, longest
    out[7], out[8] = ratio(again + (edges > 1), pieces + edges), ratio(again_length, n)
    out[9], out[10] = ratio(terminal // TERMINAL, nonblank), ratio(short, nonblank)
    out[11], out[12] = ratio(nonblank_again, n - newlines), ratio(newlines, words)
    return total


@njit(nogil=True)
def count_repeated_paragraphs(points, flags, n, keys, ends, total, slots, out):
    """Gopher's repeated paragraphs, runs of lines of the stripped text that are not empty: out[5:7].

    Overwrites `keys`: a paragraph's hash is made of those of its lines.
    """
    first, last = trim(flags, 0, n)
    mask = mask_for(total)
    slots[: mask + 1] = 0
    paragraphs, again, again_length, start, begin, inside = 0, 0, 0, 0, 0, False
    value = np.uint64(0)
    for k in range(total + 1):
        end = np.int64(ends[min(k, total - 1)])
        a, b = max(start, first), min(end, last)
        if k < total and a < b:
            key = keys[k] if a == start and b == end else hash_points(points, a, b)
            value = mix(value * np.uint64(0x9E3779B97F4A7C15) + key) if inside else key
            begin, inside = begin if inside else a, True
            stop = b
        elif inside:
            keys[paragraphs] = value
            seen = first_of(keys, paragraphs, slots, mask) != paragraphs
            paragraphs, again, again_length, inside = paragraphs + 1, again + seen, again_length + seen * (stop - begin), False
        start = end + 1
    out[5], out[6] = ratio(again, max(paragraphs, 1)), ratio(again_length, n)
