"""The compiled loops over whole documents: tokenising bytes, scanning for n-grams and for bags of words.

Words are 64-bit hashes; `offsets` are prefix positions, so row i is `[offsets[i], offsets[i + 1])`.
"""

import numba  # noqa: TID253
import numpy as np

OTHER, WORD, SINGLE, MARK = 0, 1, 2, 3
STEM_LETTERS = 6
PRIME = np.uint64(0x100000001B3)
MIX = np.uint64(0x9E3779B97F4A7C15)
BASE = np.uint64(0xD6E8FEB86659FD93)
SEED = np.uint64(0xCBF29CE484222325)


@numba.njit(nogil=True, cache=True, inline="always")
def finished(h):  # type: ignore[no-untyped-def]
    h ^= h >> np.uint64(29)
    h *= MIX
    h ^= h >> np.uint64(32)
    return h


@numba.njit(nogil=True, cache=True, inline="always")
def decoded(data, i, end):  # type: ignore[no-untyped-def]
    """(code point, position after it) of the character of more than one byte at `i`; 0 where it is cut off."""
    b = data[i]
    code, width = np.uint32(0), 2
    if b < 0xE0:
        if i + 1 < end:
            code = np.uint32((np.uint32(b & 0x1F) << 6) | (data[i + 1] & 0x3F))
    elif b < 0xF0:
        width = 3
        if i + 2 < end:
            code = np.uint32((np.uint32(b & 0x0F) << 12) | (np.uint32(data[i + 1] & 0x3F) << 6) | (data[i + 2] & 0x3F))
    else:
        width = 4
        if i + 3 < end:
            code = np.uint32(
                (np.uint32(b & 0x07) << 18)
                | (np.uint32(data[i + 1] & 0x3F) << 12)
                | (np.uint32(data[i + 2] & 0x3F) << 6)
                | (data[i + 3] & 0x3F)
            )
    return code, i + width


@numba.njit(nogil=True, cache=True)
def tokenise(data, offsets, classes, folds, words, stems, starts, ends, word_offsets):  # type: ignore[no-untyped-def]
    """UTF-8 rows → words. Fills the four word arrays (byte positions in `data`) and `word_offsets`; returns the count.

    `classes` and `folds` are tables by code point (beyond them every letter is a word of its own). A stem is the
    first six letters without a plural s, so that an inflected word is still found.
    """
    count = 0
    table = len(classes)
    for row in range(len(offsets) - 1):
        word_offsets[row] = count
        i, end = offsets[row], offsets[row + 1]
        h, stem, before = SEED, SEED, SEED
        letters, first, last_letter = 0, i, np.uint32(0)
        while i <= end:
            at = i
            if letters == 0 and i < end and data[i] < 0x80 and classes[data[i]] == WORD:
                h, j = SEED, i  # a word of ASCII letters, the most of most texts: two tight loops
                while j < end and j - i < STEM_LETTERS and data[j] < 0x80 and classes[data[j]] == WORD:
                    before = h
                    h = (h ^ np.uint64(folds[data[j]])) * PRIME
                    j += 1
                stem = before if j - i >= 4 and (data[j - 1] | 0x20) == 115 else h
                if j < end and data[j] < 0x80 and classes[data[j]] == WORD:
                    stem = h
                    while j < end and data[j] < 0x80 and classes[data[j]] == WORD:
                        h = (h ^ np.uint64(folds[data[j]])) * PRIME
                        j += 1
                if j == end or data[j] < 0x80:
                    words[count], stems[count] = finished(h), finished(stem)
                    starts[count], ends[count] = i, j
                    count += 1
                    i = j + 1  # what ends the word separates, and is ASCII
                    continue
            if i == end:
                code, kind = np.uint32(0), np.uint8(0)
                i += 1
            else:
                b = data[i]
                if b < 0x80:
                    code = np.uint32(b)
                    i += 1
                else:
                    code, i = decoded(data, i, end)
                kind = classes[code] if code < table else np.uint8(SINGLE)
            if kind == WORD:
                code = folds[code]
                if letters == 0:
                    first, h, stem, before = at, SEED, SEED, SEED
                h = (h ^ np.uint64(code)) * PRIME
                if letters < STEM_LETTERS:
                    before = stem
                    stem = h
                letters += 1
                last_letter = code
                continue
            if kind == MARK and letters:
                continue
            if letters:
                if 4 <= letters <= STEM_LETTERS and last_letter == 115:
                    stem = before
                words[count], stems[count] = finished(h), finished(stem)
                starts[count], ends[count] = first, min(at, end)
                count += 1
                letters = 0
            if kind == SINGLE:
                words[count] = finished((SEED ^ np.uint64(code)) * PRIME)
                stems[count] = words[count]
                starts[count], ends[count] = at, i
                count += 1
    word_offsets[len(offsets) - 1] = count
    return count


@numba.njit(nogil=True, cache=True, inline="always")
def slot_of(h, bits):  # type: ignore[no-untyped-def]
    return np.int64((h * MIX) >> np.uint64(64 - bits))


@numba.njit(nogil=True, cache=True)
def ngram_hashes(words, offsets, n, out, where):  # type: ignore[no-untyped-def]
    """Rolling hashes of all n-grams inside rows; `where` is the position of the first word. Returns the count."""
    top = np.uint64(1)
    for _ in range(n):
        top *= BASE
    count = 0
    for row in range(len(offsets) - 1):
        h = np.uint64(0)
        for i in range(offsets[row], offsets[row + 1]):
            h = h * BASE + words[i]
            if i - offsets[row] >= n:
                h -= top * words[i - n]
            if i - offsets[row] >= n - 1:
                out[count], where[count] = h, i - n + 1
                count += 1
    return count


@numba.njit(nogil=True, cache=True)
def build_table(keys, bits, bitmap_bits, table_keys, table_values, bitmap):  # type: ignore[no-untyped-def]
    """Open addressing over unique keys (value: the key's number), and a bitmap that answers most misses from cache."""
    mask = (1 << bits) - 1
    for k in range(len(keys)):
        spot = slot_of(keys[k], bitmap_bits)
        bitmap[spot >> 3] |= np.uint8(1 << (spot & 7))
        slot = slot_of(keys[k], bits)
        while table_values[slot] >= 0:
            slot = (slot + 1) & mask
        table_keys[slot], table_values[slot] = keys[k], k


@numba.njit(nogil=True, cache=True)
def lookup(keys, bits, bitmap_bits, table_keys, table_values, bitmap, out):  # type: ignore[no-untyped-def]
    """The number of each key, or -1."""
    mask = (1 << bits) - 1
    for i in range(len(keys)):
        out[i] = -1
        spot = slot_of(keys[i], bitmap_bits)
        if not (bitmap[spot >> 3] >> (spot & 7)) & 1:
            continue
        slot = slot_of(keys[i], bits)
        while table_values[slot] >= 0:
            if table_keys[slot] == keys[i]:
                out[i] = table_values[slot]
                break
            slot = (slot + 1) & mask


@numba.njit(nogil=True, cache=True)
def scan(words, offsets, n, bits, bitmap_bits, table_keys, table_values, bitmap):  # type: ignore[no-untyped-def]
    """Every n-gram of every row that is in the table: (row, position of its first word, number of the n-gram)."""
    top = np.uint64(1)
    for _ in range(n):
        top *= BASE
    mask = (1 << bits) - 1
    capacity, count = 1 << 14, 0
    rows, places, numbers = np.empty(capacity, np.int32), np.empty(capacity, np.int64), np.empty(capacity, np.int32)
    for row in range(len(offsets) - 1):
        h = np.uint64(0)
        begin = offsets[row]
        for i in range(begin, offsets[row + 1]):
            h = h * BASE + words[i]
            if i - begin >= n:
                h -= top * words[i - n]
            if i - begin < n - 1:
                continue
            spot = slot_of(h, bitmap_bits)
            if not (bitmap[spot >> 3] >> (spot & 7)) & 1:
                continue
            slot = slot_of(h, bits)
            while table_values[slot] >= 0:
                if table_keys[slot] == h:
                    if count == capacity:
                        capacity *= 2
                        rows = grown32(rows, capacity)
                        numbers = grown32(numbers, capacity)
                        places = _grown64(places, capacity)
                    rows[count], places[count], numbers[count] = row, i - n + 1, table_values[slot]
                    count += 1
                    break
                slot = (slot + 1) & mask
    return rows[:count], places[:count], numbers[:count]


@numba.njit(nogil=True, cache=True)
def grown32(array, capacity):  # type: ignore[no-untyped-def]
    grown = np.empty(capacity, np.int32)
    grown[: len(array)] = array
    return grown


@numba.njit(nogil=True, cache=True)
def _grown64(array, capacity):  # type: ignore[no-untyped-def]
    grown = np.empty(capacity, np.int64)
    grown[: len(array)] = array
    return grown


@numba.njit(nogil=True, cache=True)
def clusters(rows, questions, places, strengths, gap):  # type: ignore[no-untyped-def]
    """Hits sorted by (row, question, place) → regions: a new one wherever the gap to the last hit is over `gap[question]`.

    A region's strength is the sum of its hits', each place once.
    """
    count = 0
    out = np.empty((len(rows), 5), np.int64)  # row, question, first place, last place, strength
    for i in range(len(rows)):
        same = count > 0 and out[count - 1, 0] == rows[i] and out[count - 1, 1] == questions[i]
        if same and places[i] - out[count - 1, 3] <= gap[questions[i]]:
            if places[i] != out[count - 1, 3]:
                out[count - 1, 4] += strengths[i]
            out[count - 1, 3] = places[i]
        else:
            out[count, 0], out[count, 1], out[count, 2], out[count, 3], out[count, 4] = (
                rows[i],
                questions[i],
                places[i],
                places[i],
                1,
            )
            count += 1
    return out[:count]
