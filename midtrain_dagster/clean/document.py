# mypy: disable-error-code="no-untyped-def"
"""The kernel that takes documents one by one through all counts, with scratch memory of the longest one."""

from typing import NamedTuple

import numpy as np
from numba import njit  # noqa: TID253

from midtrain_dagster.clean import counting, repetition, sentences
from midtrain_dagster.clean.kernels import borrowed, decode
from midtrain_dagster.clean.words import FIRST, KEPT, SLOTS, Chunks, Rules, Words, lend, split


class Phrases(NamedTuple):
    """What is looked for in texts, each as code points."""

    c4: tuple[np.ndarray, ...]
    citations: tuple[np.ndarray, ...]
    xml: np.ndarray
    notices: tuple[np.ndarray, ...]
    c4_anchors: np.ndarray  # (k, 4) uint8: each phrase of `c4` holds one of these
    notice_anchors: np.ndarray  # (2, 4) uint8: each of `notices` holds one of these


class Text(NamedTuple):
    """Scratch for the characters of one document."""

    points: np.ndarray  # int32
    flags: np.ndarray  # int32
    breaks: np.ndarray  # int32: where line breaks are
    line: np.ndarray  # int32: a line without its citations
    line_flags: np.ndarray  # int32


@njit(nogil=True)
def holds(data, end, anchor):
    """Whether `data[:end]`, lower-cased, has the four bytes of `anchor` in a row. Without a branch, so that it vectorises."""
    found = np.uint8(0)
    a, b, c, d = anchor[0], anchor[1], anchor[2], anchor[3]
    for i in range(end - 3):
        here = (data[i] | np.uint8(32)) == a and (data[i + 1] | np.uint8(32)) == b
        found |= np.uint8(here & ((data[i + 2] | np.uint8(32)) == c) & ((data[i + 3] | np.uint8(32)) == d))
    return found != 0


@njit(nogil=True)
def marks_of(data, anchors):
    """The marks of `sentences`: what a text may hold anywhere, so that most rules need not look for it."""
    curly, bracket, ellipsis, marks = False, False, False, 0
    for i in range(data.size):
        curly |= data[i] == 123
        bracket |= data[i] == 91
    for i in range(data.size - 2):
        ellipsis |= (data[i] == 46) & (data[i + 1] == 46) & (data[i + 2] == 46)
        ellipsis |= (data[i] == 0xE2) & (data[i + 1] == 0x80) & (data[i + 2] == 0xA6)
    marks = sentences.CURLY * curly | sentences.BRACKET * bracket | sentences.ELLIPSIS * ellipsis
    for k in range(anchors.shape[0]):
        if not marks & sentences.PHRASE and holds(data, data.size, anchors[k]):
            marks |= sentences.PHRASE
    return marks


@njit(nogil=True)
def encoded_run(points, first, last):
    """Longest run of base64 characters with a digit, an upper and a lower-case letter, or of hexadecimal ones."""
    longest, start, upper, lower, digit, other = 0, first, False, False, False, False
    for i in range(first, last + 1):
        point = points[i] if i < last else 0
        if 48 <= point <= 57:
            digit = True
        elif 65 <= point <= 90:
            upper, other = True, other or point > 70
        elif 97 <= point <= 122:
            lower, other = True, other or point > 102
        elif point == 43 or point == 47 or point == 61:
            other = True
        else:
            if i - start > longest and digit and ((upper and lower) or not other):
                longest = i - start
            start, upper, lower, digit, other = i + 1, False, False, False, False
    return longest


@njit(nogil=True)
def longest_encoded_run(points, words, count):
    """The longest of the document: no run has a space, so only chunks longer than the longest so far are read."""
    longest, start = 0, 0
    for w in range(count):
        if words.shapes[w] & FIRST:
            start = words.starts[w]
        last = w + 1 == count or words.shapes[w + 1] & FIRST
        if last and words.ends[w] - start > longest:
            longest = max(longest, encoded_run(points, start, words.ends[w]))
    return longest


@njit(nogil=True)
def origin(data, points, n, words, count, phrases, out):
    """The Stack's marks of data and generated files: out[0:3]."""
    out[0] = longest_encoded_run(points, words, count)
    out[1] = sentences.contains(points, 0, min(n, 100), phrases.xml)
    end, breaks, found, head = 0, 0, False, min(data.size, 8000)
    if holds(data, head, phrases.notice_anchors[0]) or holds(data, head, phrases.notice_anchors[1]):
        while end < n and breaks < 5 and end < 2000:
            breaks += points[end] == 10
            end += 1
        for p in range(len(phrases.notices)):
            found = found or sentences.contains(points, 0, end, phrases.notices[p])
    out[2] = found


class Scratch(NamedTuple):
    """All that one document after another is worked on in."""

    text: Text
    words: Words
    spare: Words  # of a line without its citations
    chunks: Chunks
    grams: repetition.Grams


def scratch(longest: int) -> Scratch:
    """Room for documents of up to `longest` bytes."""
    size = longest + 2

    def room(kinds: str) -> list[np.ndarray]:
        return [np.zeros(size, dtype=kind) for kind in kinds.split()]

    many, slots = SLOTS * KEPT, np.zeros(counting.mask_for.py_func(size) + 1, np.int32)
    chunks = Chunks(
        np.zeros(SLOTS, np.uint64), np.zeros(SLOTS, np.uint8), np.zeros(many, np.uint8), np.zeros(many, np.uint64), np.zeros(many, np.uint8)
    )  # fmt: skip
    words = "int32 int32 uint64 uint8 int32"
    grams = repetition.Grams(*[*room("uint64 int32 uint64 int32 int32 uint8"), slots])
    return Scratch(Text(*room("int32 int32 int32 int32 int32")), Words(*room(words)), Words(*room(words)), chunks, grams)


@njit(nogil=True, cache=True)
def measure(data, offsets, table, rules, stops, phrases, scratch, out):
    """Fill `out`, (documents, signals) float64 in the order of `signals.COLUMNS`, from a buffer of UTF-8."""
    text, words, spare, cache, given = scratch
    points, flags, breaks = borrowed(text.points), borrowed(text.flags), borrowed(text.breaks)
    line, line_flags, table, stops = borrowed(text.line), borrowed(text.line_flags), borrowed(table), borrowed(stops)
    words, spare, cache = Words(*lend(words)), Words(*lend(spare)), Chunks(*lend(cache))
    rules = Rules(borrowed(rules.keys), borrowed(rules.splits), borrowed(rules.units))
    slots, ends = borrowed(given.slots), borrowed(given.first)
    grams = repetition.Grams(
        borrowed(given.prefix), borrowed(given.windows), borrowed(given.keys), ends, borrowed(given.counts),
        borrowed(given.again), slots,
    )  # fmt: skip
    for d in range(offsets.size - 1):
        part, row = data[offsets[d] : offsets[d + 1]], out[d]
        marks = marks_of(part, phrases.c4_anchors)
        n, found = decode(part, table, points, flags, breaks)
        count = split(points, flags, n, rules, words, cache)
        counting.count_words(points, flags, n, words, count, stops, marks & sentences.ELLIPSIS, row[0:9])
        counting.count_lines(points, flags, n, breaks, found, row[9:22])
        lines = counting.count_repeated_lines(points, flags, n, breaks, found, count, grams.keys, ends, slots, row[9:22])
        counting.count_repeated_paragraphs(points, flags, n, grams.keys, ends, lines, slots, row[9:22])
        repetition.count_ngrams(n, words, count, grams, row[22:31])
        sentences.c4(
            points, flags, n, breaks, found, words, count, rules, cache, phrases.c4, phrases.citations,
            line, line_flags, spare, marks, row[31:37],
        )  # fmt: skip
        origin(part, points, n, words, count, phrases, row[37:40])
