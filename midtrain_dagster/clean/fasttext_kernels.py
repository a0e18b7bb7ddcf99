# mypy: disable-error-code="no-untyped-def"
"""Kernels that classify texts with a fastText model straight from their UTF-8.

A word that comes again is looked up, not summed again. Unlike fastText, a text that holds `</s>` does not end there, and a word
that begins with `__label__` is a word: a text may speak of such things.
"""

from typing import NamedTuple

import numpy as np
from numba import njit  # noqa: TID253

from midtrain_dagster.clean.fasttext_file import Classifier

SLOTS = 1 << 15
OPEN, CLOSE = 60, 62  # fastText puts < and > around a word before it cuts it into n-grams
END = b"</s>"  # and this at the end of a line


class Memory(NamedTuple):
    """The sum of a word's rows and how many they are, by the word's hash; and where the model's own words are."""

    keys: np.ndarray  # (SLOTS,) uint64
    sums: np.ndarray  # (SLOTS, dim) float32
    counts: np.ndarray  # (SLOTS,) int32
    known: np.ndarray  # uint64: hashes of the model's words, 0 where empty
    rows: np.ndarray  # int32: their rows


def memory(model: Classifier) -> Memory:
    """Empty, with the model's words in their table."""
    size = 16
    while size < 2 * len(model.words):
        size *= 2
    known, rows = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    data = np.frombuffer(b"".join(model.words), np.uint8)
    ends = np.cumsum([0, *map(len, model.words)])
    remember(data, ends, known, rows)
    dim = model.inputs.shape[1]
    return Memory(np.zeros(SLOTS, np.uint64), np.zeros((SLOTS, dim), np.float32), np.zeros(SLOTS, np.int32), known, rows)


def start(model: Classifier) -> tuple[np.ndarray, int]:
    """The row of the end of a line, which is part of every text, and how many rows that is."""
    found = [row for row, word in enumerate(model.words) if word == END]
    return (model.inputs[found[0]], 1) if found else (np.zeros(model.inputs.shape[1], np.float32), 0)


@njit(nogil=True)
def hashed(data, a, b):
    """64-bit hash of bytes, never 0."""
    value = np.uint64(0x9E3779B97F4A7C15)
    for i in range(a, b):
        value = (value ^ np.uint64(data[i])) * np.uint64(0xFF51AFD7ED558CCD)
        value ^= value >> np.uint64(29)
    return value | np.uint64(1)


@njit(nogil=True, cache=True)
def remember(data, ends, known, rows):
    """Put words into their table."""
    for w in range(ends.size - 1):
        key = hashed(data, ends[w], ends[w + 1])
        slot = np.int64(key & np.uint64(known.size - 1))
        while known[slot] != 0:
            slot = (slot + 1) & (known.size - 1)
        known[slot], rows[slot] = key, w


@njit(nogil=True)
def row_of(key, known, rows):
    """The row of a word of the model, or -1."""
    slot = np.int64(key & np.uint64(known.size - 1))
    while known[slot] != 0:
        if known[slot] == key:
            return np.int64(rows[slot])
        slot = (slot + 1) & (known.size - 1)
    return np.int64(-1)


@njit(nogil=True)
def byte_at(data, a, b, i):
    """Byte i of `<` + word + `>`."""
    if i == 0:
        return np.int64(OPEN)
    return np.int64(data[a + i - 1]) if i <= b - a else np.int64(CLOSE)


@njit(nogil=True)
def add_ngrams(data, a, b, words, shortest, longest, buckets, bucket, inputs, total):
    """Add the rows of a word's character n-grams to `total`; returns how many. FNV-1a over signed bytes, as fastText has it."""
    size, added = b - a + 2, 0
    for i in range(size):
        if byte_at(data, a, b, i) & 0xC0 == 0x80:
            continue
        value, j, n = np.uint32(2166136261), i, 1
        while j < size and n <= longest:
            first = True
            while j < size and (first or byte_at(data, a, b, j) & 0xC0 == 0x80):
                byte = byte_at(data, a, b, j)
                signed = np.uint32(byte) if byte < 128 else np.uint32(byte | 0xFFFFFF00)
                value = np.uint32((value ^ signed) * np.uint32(16777619))
                j, first = j + 1, False
            if n >= shortest and not (n == 1 and (i == 0 or j == size)):
                place = np.int64(value) % bucket
                row = words + place if buckets[0] == -2 else np.int64(buckets[place])
                if row >= 0:
                    for k in range(total.size):
                        total[k] += inputs[row, k]
                    added += 1
            n += 1
    return added


@njit(nogil=True)
def slot_of(data, a, b, key, words, shortest, longest, buckets, bucket, inputs, memory):
    """The slot that holds the sum of a word's rows."""
    slot = np.int64(key >> np.uint64(20)) & (SLOTS - 1)
    if memory.keys[slot] != key:
        total = memory.sums[slot]
        total[:] = 0
        row, count = row_of(key, memory.known, memory.rows), 0
        if row >= 0:
            for k in range(total.size):
                total[k] += inputs[row, k]
            count = 1
        count += add_ngrams(data, a, b, words, shortest, longest, buckets, bucket, inputs, total)
        memory.keys[slot], memory.counts[slot] = key, count
    return slot


@njit(nogil=True)
def best(hidden, outputs, left, right, nodes, scores):
    """(label, log probability) of the likeliest leaf of the tree."""
    labels = left.size + 1
    nodes[0], scores[0] = 2 * labels - 2, 0.0
    count, found, most = 1, 0, -1e30
    while count:
        count -= 1
        node, score = nodes[count], scores[count]
        if score < most:
            continue
        if node < labels:
            found, most = node, score
            continue
        dot = np.float32(0)
        for k in range(hidden.size):
            dot += hidden[k] * outputs[node - labels, k]
        chance = 1 / (1 + np.exp(-np.float64(dot)))
        nodes[count], scores[count] = left[node - labels], score + np.log(1 - chance + 1e-5)
        nodes[count + 1], scores[count + 1] = right[node - labels], score + np.log(chance + 1e-5)
        count += 2
    return found, most


@njit(nogil=True, cache=True)
def classify(
    data, offsets, opening, words, shortest, longest, buckets, bucket, inputs, outputs, left, right, memory, out, scores
):
    """Label and log probability of each text. `opening`: (row, count) that every text begins with; -1 where a text has no row."""
    hidden = np.zeros(inputs.shape[1], np.float32)
    nodes, below = np.zeros(2 * left.size + 4, np.int32), np.zeros(2 * left.size + 4, np.float64)
    for d in range(offsets.size - 1):
        hidden[:] = opening[0]
        count, i, end = opening[1], offsets[d], offsets[d + 1]
        while i < end:
            if data[i] == 32 or 9 <= data[i] <= 13 or data[i] == 0:
                i += 1
                continue
            a, value = i, np.uint64(0x9E3779B97F4A7C15)
            while i < end and not (data[i] == 32 or 9 <= data[i] <= 13 or data[i] == 0):
                value = (value ^ np.uint64(data[i])) * np.uint64(0xFF51AFD7ED558CCD)
                value ^= value >> np.uint64(29)
                i += 1
            slot = slot_of(data, a, i, value | np.uint64(1), words, shortest, longest, buckets, bucket, inputs, memory)
            for k in range(hidden.size):
                hidden[k] += memory.sums[slot, k]
            count += memory.counts[slot]
        if count == 0:
            out[d] = -1
            continue
        for k in range(hidden.size):
            hidden[k] /= np.float32(count)
        out[d], scores[d] = best(hidden, outputs, left, right, nodes, below)
