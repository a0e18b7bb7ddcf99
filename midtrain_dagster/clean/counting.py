# mypy: disable-error-code="no-untyped-def"
"""Kernels that count over a decoded document: words, lines, repeated lines and paragraphs, repeated n-grams.

Each writes its signals into one row of a float64 matrix at the positions of `signals.COLUMNS`. NaN: no denominator.
"""

import numpy as np
from numba import njit  # noqa: TID253

from midtrain_dagster.clean import characters as c
from midtrain_dagster.clean.kernels import hash_points, mix

SPACE, ALPHA, ALNUM, PUNCTUATION, TERMINAL, BREAK = c.SPACE, c.ALPHA, c.ALNUM, c.PUNCTUATION, c.TERMINAL, c.LINE_BREAK
NEWLINE, DOT, ELLIPSIS = 10, 46, 0x2026
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@njit(nogil=True, cache=True, inline="always")
def ratio(part, whole):
    """part / whole, NaN where there is no whole."""
    return part / whole if whole else np.nan


@njit(nogil=True, cache=True)
def insert(key, index, keys, first, counts, mask):
    """Count `key` in an open-addressing table; returns its slot. A slot with count 0 is empty."""
    slot = np.int64(key & np.uint64(mask))
    while counts[slot] != 0:
        if keys[slot] == key:
            counts[slot] += 1
            return slot
        slot = (slot + 1) & mask
    keys[slot], first[slot], counts[slot] = key, index, 1
    return slot


@njit(nogil=True, cache=True)
def mask_for(n):
    """Size - 1 of a table that `n` keys fill at most half."""
    size = 16
    while size < 2 * n:
        size *= 2
    return size - 1


@njit(nogil=True, cache=True)
def words(points, flags, n, starts, ends, hashes, count, stops, out):
    """Gopher's word statistics into out[0:10]; fills `hashes`, one a word. `stops`: hashes of the stop words."""
    symbols, length, alphabetic, seen = 0, 0, 0, 0
    for w in range(count):
        outside, letters = False, False
        for i in range(starts[w], ends[w]):
            outside |= flags[i] & PUNCTUATION == 0
            letters |= flags[i] & ALPHA != 0
        if outside:
            length += ends[w] - starts[w]
        else:
            symbols += 1
        alphabetic += letters
        hashes[w] = hash_points(points, starts[w], ends[w])
        if ends[w] - starts[w] <= 4:
            for s in range(stops.size):
                if hashes[w] == stops[s]:
                    seen |= 1 << s
    hash_marks, ellipses, alphanumeric, i = 0, 0, 0, 0
    while i < n:
        hash_marks += points[i] == 35
        alphanumeric += flags[i] & ALNUM != 0
        if points[i] == ELLIPSIS:
            ellipses += 1
        elif points[i] == DOT and i + 2 < n and points[i + 1] == DOT and points[i + 2] == DOT:
            ellipses += 1
            i += 2
        i += 1
    stop_words = 0
    for s in range(stops.size):
        stop_words += seen >> s & 1
    out[0], out[1], out[2] = n, count, count - symbols
    out[3] = ratio(length, count - symbols)
    out[4], out[5], out[6] = ratio(hash_marks, count), ratio(ellipses, count), ratio(alphabetic, count)
    out[7], out[8] = stop_words, ratio(alphanumeric, n)


@njit(nogil=True, cache=True)
def line_shape(points, flags, a, b):
    """Of one line: starts with a bullet, ends with an ellipsis (1, 2 as bits), is blank (4)."""
    while a < b and flags[a] & SPACE:
        a += 1
    while b > a and flags[b - 1] & SPACE:
        b -= 1
    if a == b:
        return 4
    shape = 1 if points[a] == 0x2022 or points[a] == 45 else 0
    three = b - a >= 3 and points[b - 1] == DOT and points[b - 2] == DOT and points[b - 3] == DOT
    return shape | (2 if three or points[b - 1] == ELLIPSIS else 0)


@njit(nogil=True, cache=True)
def lines(points, flags, n, out):
    """Gopher's bullets and ellipses over str.splitlines; the Stack's line lengths over "\\n": out[0:5]."""
    total, bullets, ellipses, start, i = 0, 0, 0, 0, 0
    while i < n:
        if flags[i] & BREAK:
            shape = line_shape(points, flags, start, i)
            total, bullets, ellipses = total + 1, bullets + (shape & 1), ellipses + (shape >> 1 & 1)
            i += 1 if points[i] == 13 and i + 1 < n and points[i + 1] == NEWLINE else 0
            start = i + 1
        i += 1
    if start < n:
        shape = line_shape(points, flags, start, n)
        total, bullets, ellipses = total + 1, bullets + (shape & 1), ellipses + (shape >> 1 & 1)
    longest, start, newlines = 0, 0, 0
    for i in range(n + 1):
        if i == n or points[i] == NEWLINE:
            longest, start, newlines = max(longest, i - start), i + 1, newlines + (i < n)
    out[0], out[1], out[2] = total, ratio(bullets, total), ratio(ellipses, total)
    out[3], out[4] = ratio(n - newlines, newlines + 1) if n else np.nan, longest


@njit(nogil=True, cache=True)
def duplicate_pieces(points, flags, n, least, stripped, keys, first, counts, out):
    """Gopher's repeated lines (`least` 1 newline between) or paragraphs (2, of the stripped text): out[0:2] as shares."""
    a, b = 0, n
    if stripped:
        while a < b and flags[a] & SPACE:
            a += 1
        while b > a and flags[b - 1] & SPACE:
            b -= 1
    breaks = 0
    for i in range(a, b):
        breaks += points[i] == NEWLINE
    mask = mask_for(breaks + 1)
    counts[: mask + 1] = 0
    pieces, duplicates, characters, start, i = 0, 0, 0, a, a
    while i <= b:
        run = 0
        while i + run < b and points[i + run] == NEWLINE:
            run += 1
        if i == b or run >= least:
            slot = insert(hash_points(points, start, i), i, keys, first, counts, mask)
            pieces += 1
            if counts[slot] > 1:
                duplicates, characters = duplicates + 1, characters + i - start
            start = i + run
        i += max(run, 1)
        if run >= least and i >= b and start == b:  # the text ends with the separator: one empty piece more
            slot = insert(hash_points(points, b, b), b, keys, first, counts, mask)
            pieces += 1
            duplicates += counts[slot] > 1
            break
    out[0], out[1] = ratio(duplicates, pieces), ratio(characters, n)


@njit(nogil=True, cache=True)
def fineweb(points, flags, n, words, keys, first, counts, out):
    """FineWeb's line statistics over lines that are not blank: out[0:4]."""
    newlines = 0
    for i in range(n):
        newlines += points[i] == NEWLINE
    mask = mask_for(newlines + 1)
    counts[: mask + 1] = 0
    total, terminal, short, characters, start = 0, 0, 0, 0, 0
    for i in range(n + 1):
        if i < n and points[i] != NEWLINE:
            continue
        if line_shape(points, flags, start, i) != 4:
            total += 1
            terminal += flags[i - 1] & TERMINAL != 0
            short += i - start <= 30
            slot = insert(hash_points(points, start, i), i, keys, first, counts, mask)
            characters += i - start if counts[slot] > 1 else 0
        start = i + 1
    out[0], out[1] = ratio(terminal, total), ratio(short, total)
    out[2], out[3] = ratio(characters, n - newlines), ratio(newlines, words)


@njit(nogil=True, cache=True)
def prefix_hashes(hashes, count, prefix):
    """Polynomial prefix hashes of the words: any n-gram's hash is then one multiplication away."""
    prefix[0] = 0
    for w in range(count):
        prefix[w + 1] = prefix[w] * MULTIPLIER + hashes[w]


@njit(nogil=True, cache=True)
def top_ngram(starts, ends, count, prefix, size, keys, first, counts):
    """Characters in the most frequent n-gram (words joined by one space) times how often; of equals the first counts."""
    windows = count - size + 1
    if windows <= 0:
        return 0
    power = np.uint64(1)
    for _ in range(size):
        power *= MULTIPLIER
    mask = mask_for(windows)
    counts[: mask + 1] = 0
    best, where = 0, 0
    for w in range(windows):
        slot = insert(mix(prefix[w + size] - prefix[w] * power), w, keys, first, counts, mask)
        if counts[slot] > best or (counts[slot] == best and first[slot] < where):
            best, where = counts[slot], first[slot]
    length = size - 1
    for w in range(where, where + size):
        length += ends[w] - starts[w]
    return length * best


@njit(nogil=True, cache=True)
def repeated_ngrams(starts, ends, count, prefix, size, keys, first, counts):
    """Characters in n-grams that occurred before, counted greedily from the left without overlap."""
    windows = count - size + 1
    if windows <= 0:
        return 0
    power = np.uint64(1)
    for _ in range(size):
        power *= MULTIPLIER
    mask = mask_for(windows)
    counts[: mask + 1] = 0
    repeated, w = 0, 0
    while w < windows:
        slot = insert(mix(prefix[w + size] - prefix[w] * power), w, keys, first, counts, mask)
        if counts[slot] > 1:
            for i in range(w, w + size):
                repeated += ends[i] - starts[i]
            w += size
        else:
            w += 1
    return repeated


@njit(nogil=True, cache=True)
def ngrams(n, starts, ends, hashes, count, prefix, keys, first, counts, out):
    """Gopher's repetition: top 2-, 3-, 4-grams in out[0:3], repeated 5- to 10-grams in out[3:9], as shares of the characters."""
    prefix_hashes(hashes, count, prefix)
    for size in range(2, 5):
        out[size - 2] = ratio(top_ngram(starts, ends, count, prefix, size, keys, first, counts), n)
    repeated = 1
    for size in range(5, 11):
        if repeated:  # no repeated n-gram, no repeated (n + 1)-gram
            repeated = repeated_ngrams(starts, ends, count, prefix, size, keys, first, counts)
        out[size - 2] = ratio(repeated, n)
