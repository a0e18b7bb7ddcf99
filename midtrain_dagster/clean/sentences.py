# mypy: disable-error-code="no-untyped-def"
"""Kernels for C4's line rules: which lines would stay, and how many sentences they hold (Raffel et al., arXiv:1910.10683)."""

import numpy as np
from numba import njit  # noqa: TID253

from midtrain_dagster.clean import characters as c
from midtrain_dagster.clean.kernels import split_words

SPACE, DIGIT, BREAK, PUNCT, TERMINAL = c.SPACE, c.DIGIT, c.LINE_BREAK, c.UNICODE_PUNCTUATION, c.TERMINAL
DOT, OPEN, CLOSE = 46, 91, 93


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
def same(points, a, b, phrase):
    """Whether `points[a:]` begins with `phrase`, within b."""
    if b - a < phrase.size:
        return False
    for j in range(phrase.size):  # noqa: SIM110
        if points[a + j] != phrase[j]:
            return False
    return True


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
def count_sentences(points, flags, starts, ends, words):
    """Sentences as spaCy's sentencizer cuts them: one begins with the first word after a full stop that is no punctuation."""
    if words == 0:
        return 0
    sentences, seen = 1, False
    for w in range(words):
        single = ends[w] - starts[w] == 1
        stop = single and flags[starts[w]] & TERMINAL != 0
        punctuation = True
        for i in range(starts[w], ends[w]):
            punctuation &= flags[i] & PUNCT != 0
        if seen and not stop and not punctuation:
            sentences, seen = sentences + 1, False
        elif stop:
            seen = True
    return sentences


@njit(nogil=True, cache=True)
def shape(points, flags, a, b):
    """(words between spaces, the longest of them in characters) of `points[a:b]`."""
    words, longest, start = 0, 0, -1
    for i in range(a, b + 1):
        if i < b and not flags[i] & SPACE:
            start = i if start < 0 else start
        elif start >= 0:
            words, longest, start = words + 1, max(longest, i - start), -1
    return words, longest


@njit(nogil=True, cache=True)
def c4(points, flags, n, tables, phrases, citations, line, line_flags, suffixes, starts, ends, out):
    """C4's verdict on each line of a document: out[0:6] as `signals.COLUMNS` names them. Overwrites the word arrays."""
    keys, splits, units = tables
    total, kept, sentences, lorem, curly, javascript, policy, start, i = 0, 0, 0, 0, 0, 0, 0, 0, 0
    while i <= n:
        if i < n and not flags[i] & BREAK:
            i += 1
            continue
        a, b = start, i
        i += 2 if i + 1 < n and points[i] == 13 and points[i + 1] == 10 else 1
        start = i
        if a >= n:
            break
        total += 1
        while a < b and flags[a] & SPACE:
            a += 1
        while b > a and flags[b - 1] & SPACE:
            b -= 1
        if b - a < 5:
            continue
        m = without_citations(points, flags, a, b, citations, line, line_flags)
        last = line[m - 1] if m else 0
        terminal = last == DOT or last == 63 or last == 33 or last == 34 or last == 39
        dots = m >= 3 and last == DOT and line[m - 2] == DOT and line[m - 3] == DOT
        if not terminal or dots:
            continue
        words, longest = shape(points, flags, a, b)
        if words < 3 or longest > 1000:
            continue
        if contains(line, 0, m, phrases[0]):
            lorem += 1
        elif contains(line, 0, m, phrases[1]):
            javascript += 1
        elif np.any(line[:m] == 123):
            curly += 1
        else:
            found = False
            for p in range(2, len(phrases)):
                found = found or contains(line, 0, m, phrases[p])
            if found:
                policy += 1
                continue
            count = split_words(line, line_flags, m, keys, splits, units, suffixes, starts, ends)
            kept, sentences = kept + 1, sentences + count_sentences(line, line_flags, starts, ends, count)
    out[0], out[1] = sentences, kept / total if total else np.nan
    out[2], out[3], out[4], out[5] = lorem, curly, javascript, policy
