"""The pieces of documents that are compared with questions as wholes: short documents, definitions, and windows in long pages."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from midtrain_dagster.decontaminate.index import Index
from midtrain_dagster.decontaminate.words import Words, split

BRIEF = 120  # words of a document that is compared though nothing voted: two rare words may be all that is left
LONGEST = 400  # words of a document that is compared as a whole
BLOCK, STRONGEST = 40, 1  # windows kept where windows begin within so many words of a document
SLACK = 14  # words that a window may be moved, so that it begins and ends with a sentence
LEAST_SHARE = 360  # thousandths of a chunk's votes
SMALL = 1.6  # a document of less than so many times a window's words needs no window
DEFINITION = re.compile(r"^[ \t]*(?:def|class) \w+.*?:[ \t]*\n\s*(?:[rR]?)(\"\"\"|''').*?\1", re.DOTALL | re.MULTILINE)


class Passages(NamedTuple):
    """Short pieces of documents that are compared as wholes."""

    rows: np.ndarray  # int64 document
    first: np.ndarray  # word position among all documents' words
    end: np.ndarray
    words: Words  # of the passages' own texts


def passages(documents: Words, index: Index, votes: np.ndarray) -> Passages | None:
    """Short documents (with votes, brief, or with a function where one is asked for), the definition in one apart from its body, and a window around the strongest votes elsewhere.

    `votes` as in `shortlist`. None when there is no passage.
    """
    lengths = np.diff(documents.offsets)
    voted = np.union1d(votes[:, 0], np.flatnonzero(lengths <= BRIEF))
    if index.is_code.any():
        brief = np.flatnonzero(lengths <= LONGEST).tolist()
        voted = np.union1d(voted, np.array([row for row in brief if _has_function(documents, row)], np.int64))
    spans = [*_short(documents, voted.tolist()), *_windows(documents, index, votes)]
    if not spans:
        return None
    rows, first, end = (np.array(column, np.int64) for column in zip(*spans, strict=True))
    texts = [_text(documents, a, b) for a, b in zip(first.tolist(), end.tolist(), strict=True)]
    return Passages(rows, first, end, split(pl.Series(texts, dtype=pl.String)))


def _has_function(documents: Words, row: int) -> bool:
    return b"def " in documents.data[documents.text_offsets[row] : documents.text_offsets[row + 1]].tobytes()


def _text(documents: Words, first: int, end: int) -> str:
    return documents.data[documents.starts[first] : documents.ends[end - 1]].tobytes().decode("utf-8", "replace")


def _short(documents: Words, rows: list[int]) -> Iterator[tuple[int, int, int]]:
    for row in rows:
        first, end = int(documents.offsets[row]), int(documents.offsets[row + 1])
        if not 2 < end - first <= LONGEST:
            continue
        yield row, first, end
        at = documents.text_offsets[row]
        text = documents.data[at : documents.text_offsets[row + 1]].tobytes().decode("utf-8", "replace")
        found = DEFINITION.search(text) if "def " in text and ('"""' in text or "'''" in text) else None
        if found:
            a, b = (int(at) + len(text[:place].encode()) for place in found.span())
            own = documents.starts[first:end]
            yield row, first + int(np.searchsorted(own, a)), first + int(np.searchsorted(own, b))


def _windows(documents: Words, index: Index, votes: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """As long as the question that got the votes, around them, from the beginning of a sentence to the end of one."""
    from midtrain_dagster.decontaminate.resemblance_kernels import sentence

    units = index.bags.chunk_unit[votes[:, 1]]
    length = np.minimum(np.diff(index.units.offsets)[units], LONGEST)
    rows, first, last = (votes[:, k].astype(np.int64) for k in (0, 2, 3))
    size = np.maximum(last - first + 1, np.round(1.1 * length).astype(np.int64) + 4)
    whole = np.diff(documents.offsets)[rows]
    wanted = (whole > SMALL * size) & (votes[:, 4] >= LEAST_SHARE)
    order = np.lexsort((first, -votes[:, 4], first // BLOCK, rows))
    order = order[wanted[order]]
    row, block = rows[order], first[order] // BLOCK
    fresh = np.concatenate([[True], (row[1:] != row[:-1]) | (block[1:] != block[:-1])]) if len(order) else np.empty(0, bool)
    starts = np.flatnonzero(fresh)
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    seen: set[tuple[int, int, int]] = set()
    for k in order[rank < STRONGEST].tolist():
        begin, stop = int(documents.offsets[rows[k]]), int(documents.offsets[rows[k] + 1])
        spare = int(size[k] - (last[k] - first[k] + 1))
        a = max(begin, begin + int(first[k]) - (spare + 1) // 2)
        b = min(stop, a + int(size[k]))
        place = (documents.data, documents.starts, documents.ends)
        span = (int(rows[k]), sentence(*place, a, begin, stop, SLACK), sentence(*place, b, begin, stop, SLACK))
        if span not in seen:
            seen.add(span)
            yield span
