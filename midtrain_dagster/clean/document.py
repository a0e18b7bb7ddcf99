# mypy: disable-error-code="no-untyped-def"
"""The kernel that takes documents one by one through all counts, with scratch memory of the longest one."""

import numpy as np
from numba import njit  # noqa: TID253

from midtrain_dagster.clean import counting, sentences
from midtrain_dagster.clean.kernels import borrowed, decode, split_words


@njit(nogil=True, cache=True)
def encoded_run(points, n):
    """Length of the longest run of base64 characters with a digit, an upper and a lower-case letter, or of hexadecimal ones."""
    longest, start, upper, lower, digit, other = 0, 0, False, False, False, False
    for i in range(n + 1):
        point = points[i] if i < n else 0
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


@njit(nogil=True, cache=True)
def origin(points, n, header, notices, out):
    """The Stack's marks of data and generated files: out[0:3]."""
    out[0] = encoded_run(points, n)
    out[1] = sentences.contains(points, 0, min(n, 100), header)
    end, breaks = 0, 0
    while end < n and breaks < 5 and end < 2000:
        breaks += points[end] == 10
        end += 1
    found = False
    for p in range(len(notices)):
        found = found or sentences.contains(points, 0, end, notices[p])
    out[2] = found


@njit(nogil=True, cache=True)
def one(data, table, tables, stops, phrases, citations, header, notices, scratch, words_scratch, slots, row):
    """The signals of one document, the UTF-8 `data`, into `row`."""
    keys, splits, units = tables
    points, flags, line, line_flags = scratch
    suffixes, starts, ends, hashes, prefix = words_scratch
    seen, first, counts = slots
    n = decode(data, 0, data.size, table, points, flags)
    words = split_words(points, flags, n, keys, splits, units, suffixes, starts, ends)
    counting.words(points, flags, n, starts, ends, hashes, words, stops, row[0:9])
    counting.lines(points, flags, n, row[9:14])
    counting.duplicate_pieces(points, flags, n, 2, True, seen, first, counts, row[14:16])
    counting.duplicate_pieces(points, flags, n, 1, False, seen, first, counts, row[16:18])
    counting.fineweb(points, flags, n, words, seen, first, counts, row[18:22])
    counting.ngrams(n, starts, ends, hashes, words, prefix, seen, first, counts, row[22:31])
    sentences.c4(points, flags, n, tables, phrases, citations, line, line_flags, suffixes, starts, ends, row[31:37])
    origin(points, n, header, notices, row[37:40])


@njit(nogil=True, cache=True)
def measure(data, offsets, table, tables, stops, phrases, citations, header, notices, width):
    """(documents, width) float64: the signals of `signals.COLUMNS` of each document in a buffer of UTF-8."""
    total, longest = offsets.size - 1, 0
    for d in range(total):
        longest = max(longest, offsets[d + 1] - offsets[d])
    size, table_size = longest + 2, counting.mask_for(longest + 2) + 1
    points, flags, line, line_flags = (
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
    )
    suffixes, starts, ends = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
    hashes, prefix = np.empty(size, np.uint64), np.empty(size, np.uint64)
    seen, first, counts = np.empty(table_size, np.uint64), np.empty(table_size, np.int64), np.empty(table_size, np.int64)
    scratch = borrowed(points), borrowed(flags), borrowed(line), borrowed(line_flags)
    words_scratch = borrowed(suffixes), borrowed(starts), borrowed(ends), borrowed(hashes), borrowed(prefix)
    slots = borrowed(seen), borrowed(first), borrowed(counts)
    bare_tables = borrowed(tables[0]), borrowed(tables[1]), borrowed(tables[2])
    out = np.zeros((total, width))
    for d in range(total):
        text, row = data[offsets[d] : offsets[d + 1]], out[d]
        one(
            borrowed(text), borrowed(table), bare_tables, borrowed(stops), phrases, citations, header, notices,
            scratch, words_scratch, slots, borrowed(row),
        )  # fmt: skip
    kept = points[0] + flags[0] + line[0] + line_flags[0] + suffixes[0] + starts[0] + ends[0] + seen[0] + first[0] + counts[0]
    return out, kept + hashes[0] + prefix[0]
