# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: SIM109
"""Kernels for C4's line rules: which lines would stay, and how many sentences they hold (Raffel et al., arXiv:1910.10683)."""

import numpy as np
from numba import njit  # noqa: TID253

from midtrain_dagster.clean import characters as c
from midtrain_dagster.clean.counting import trim
from midtrain_dagster.clean.words import FIRST, SIGNS, STOP, split

DIGIT = c.DIGIT
DOT, OPEN, CLOSE = 46, 91, 93

# What a text holds at all, as bits of its marks: most rules then need no look.
PHRASE, CURLY, BRACKET, ELLIPSIS = 1, 2, 4, 8


@njit(nogil=True)
def contains(points, a, b, phrase):
    """Whether `points[a:b]`, its ASCII letters in lower case, holds the lower-case `phrase`."""
    for i in range(a, b - phrase.size + 1):
        j = 0
        while j < phrase.size:
            point = points[i + j]
            if 65 <= point <= 90:
                point += 32
            if point != phrase[j]:
                break
            j += 1
        if j == phrase.size:
            return True
    return False


@njit(nogil=True)
def same(points, a, b, phrase):
    """Whether `points[a:]` begins with `phrase`, within b."""
    if b - a < phrase.size:
        return False
    for j in range(phrase.size):  # noqa: SIM110
        if points[a + j] != phrase[j]:
            return False
    return True


@njit(nogil=True)
def without_citations(points, flags, a, b, citations, line, line_flags):
    """Copy `points[a:b]` less Wikipedia's marks ([12], [edit], [citation needed]); returns the length."""
    n, i = 0, a
    while i < b:
        if points[i] == OPEN:
            j = i + 1
            while j < b and flags[j] & DIGIT:
                j += 1
            if j < b and points[j] == CLOSE:
                i = j + 1
                continue
            if same(points, i, b, citations[0]):
                i += citations[0].size
                continue
            if same(points, i, b, citations[1]):
                i += citations[1].size
                continue
        line[n], line_flags[n] = points[i], flags[i]
        n, i = n + 1, i + 1
    return n


@njit(nogil=True)
def count_sentences(shapes, first, last):
    """Sentences as spaCy's sentencizer cuts them: one begins with the first word after a full stop that is no punctuation."""
    if first == last:
        return 0
    sentences, seen = 1, False
    for w in range(first, last):
        if shapes[w] & STOP:
            seen = True
        elif seen and not shapes[w] & SIGNS:
            sentences, seen = sentences + 1, False
    return sentences


@njit(nogil=True)
def chunks_of(words, first, last):
    """(chunks between spaces, the longest of them in characters) of some words."""
    chunks, longest, start = 0, 0, 0
    for w in range(first, last):
        if words.shapes[w] & FIRST:
            chunks, start = chunks + 1, words.starts[w]
        longest = max(longest, words.ends[w] - start)
    return chunks, longest


@njit(nogil=True)
def verdict(points, a, b, phrases, marks):
    """0: C4 keeps a line; else which rule it falls to: 1 lorem ipsum, 2 JavaScript, 3 a curly bracket, 4 a policy."""
    if marks & PHRASE:
        if contains(points, a, b, phrases[0]):
            return 1
        if contains(points, a, b, phrases[1]):
            return 2
    if marks & CURLY:
        for i in range(a, b):
            if points[i] == 123:
                return 3
    if marks & PHRASE:
        for p in range(2, len(phrases)):
            if contains(points, a, b, phrases[p]):
                return 4
    return 0


@njit(nogil=True)
def may_end(point):
    """Whether this is one of the marks that C4 takes for an end, or the end of a citation after one."""
    return point == DOT or point == 63 or point == 33 or point == 34 or point == 39 or point == CLOSE


@njit(nogil=True)
def ends_well(points, a, b):
    """Whether a line ends with a mark that C4 takes for an end, and not with an ellipsis."""
    last = points[b - 1] if b > a else 0
    terminal = last == DOT or last == 63 or last == 33 or last == 34 or last == 39
    return terminal and not (b - a >= 3 and last == DOT and points[b - 2] == DOT and points[b - 3] == DOT)


@njit(nogil=True)
def c4(points, flags, n, breaks, found, words, count, rules, cache, phrases, citations, line, line_flags, spare, marks, out):
    """C4's verdict on each line of a document: out[0:6] as `signals.COLUMNS` names them. `spare`: a second set of words.

    Only lines that may hold a citation mark are copied and cut into words again.
    """
    total, kept, sentences, start, word = 0, 0, 0, 0, 0
    lorem, javascript, curly, policy = 0, 0, 0, 0
    for k in range(found + 1):
        end = breaks[k] if k < found else n
        if end < start or (k == found and start >= n):
            continue
        a, b = trim(flags, start, end)
        start = end + 1
        if start < n and points[end] == 13 and points[start] == 10:
            start += 1
        total += 1
        first = word
        while word < count and words.starts[word] < end:
            word += 1
        if b - a < 5:
            continue
        if not may_end(points[b - 1]):
            continue
        text, text_flags, m = points, flags, 0
        if marks & BRACKET and np.any(points[a:b] == OPEN):
            m = without_citations(points, flags, a, b, citations, line, line_flags)
        cited = 0 < m < b - a
        if cited:
            text, text_flags, a, b = line, line_flags, 0, m
        chunks, longest = chunks_of(words, first, word)
        if chunks < 3 or longest > 1000 or not ends_well(text, a, b):
            continue
        rule = verdict(text, a, b, phrases, marks | (PHRASE if cited else 0))
        lorem, javascript, curly, policy = (
            lorem + (rule == 1),
            javascript + (rule == 2),
            curly + (rule == 3),
            policy + (rule == 4),
        )
        if rule:
            continue
        kept += 1
        if cited:
            sentences += count_sentences(spare.shapes, 0, split(text, text_flags, b, rules, spare, cache))
        else:
            sentences += count_sentences(words.shapes, first, word)
    out[0], out[1] = sentences, kept / total if total else np.nan
    out[2], out[3], out[4], out[5] = lorem, curly, javascript, policy
