"""Where in documents of other languages a question may stand, by meaning alone: no English word is there to vote for it.

Each sentence is encoded once. What several in a row say together is near the sum of what they say, each by its length, so that
runs of sentences are compared with all questions without being encoded; those that come near one are the passages.
"""

import re

import numpy as np
import polars as pl

from midtrain_dagster.decontaminate.embedding import Encoder, text_of
from midtrain_dagster.decontaminate.index import Index
from midtrain_dagster.decontaminate.languages import Foreign, Reading
from midtrain_dagster.decontaminate.passages import Passages
from midtrain_dagster.decontaminate.resemblance import prose, telling_units
from midtrain_dagster.decontaminate.words import Words, split

STOP = re.compile(rb"[.?!][\s\"')\]]|\n|\xe3\x80\x82|\xef\xbc[\x81\x9f]|\xd8\x9f|\xe0\xa5\xa4")  # . ? ! and 。！？؟।
LONGEST = 80  # words of a sentence; what is longer, as a text without stops, is cut
RUN, MOST = 8, 200  # sentences of a run, and its words
PERHAPS = 0.6  # closeness of a run's sum to a question, from which on the run is looked at
BYTES_AT_ONCE = 1 << 20  # of documents, so that the vectors of their sentences take little memory
AT_ONCE = 256  # texts that are encoded, or runs that are compared, together


def translated(documents: Words, index: Index, encoder: Encoder, abroad: Foreign) -> Passages | None:
    """Runs of sentences of foreign documents that may be a translated question. None when there is none."""
    asked = telling_units(index)
    if not len(asked):
        return None
    known = index.vectors(asked.tolist(), encoder, prose)
    questions = np.stack([known[unit] for unit in asked.tolist()]).T
    size = np.cumsum(np.diff(documents.text_offsets)[abroad.rows])
    parts = np.split(abroad.rows, np.flatnonzero(np.diff(size // BYTES_AT_ONCE)) + 1)
    rows, first, end = np.concatenate([_runs(documents, part, questions, encoder, abroad.reading) for part in parts]).T
    if not len(rows):
        return None
    texts = [text_of(documents, a, b) for a, b in zip(first.tolist(), end.tolist(), strict=True)]
    return Passages(rows, first, end, split(pl.Series(texts, dtype=pl.String)))


def _runs(documents: Words, rows: np.ndarray, questions: np.ndarray, encoder: Encoder, reading: Reading) -> np.ndarray:
    """(n, 3): document, first word, end word of runs of sentences of some documents that come near one of `questions` (d, m)."""
    row, first, end = sentences(documents, rows)
    spans = [np.empty((0, 3), np.int64)]
    if not len(row):
        return spans[0]
    said = _encoded(documents, first, end, encoder) * (end - first)[:, None]
    sums = np.concatenate([np.zeros((1, said.shape[1])), np.cumsum(said, axis=0, dtype=np.float64)])
    for length in range(1, RUN + 1):
        begin = np.arange(max(0, len(row) - length + 1))
        last = begin + length - 1
        begin = begin[(row[begin] == row[last]) & (end[last] - first[begin] <= MOST)]
        for at in range(0, len(begin), AT_ONCE):
            some = begin[at : at + AT_ONCE]
            run = (sums[some + length] - sums[some]).astype(np.float32)
            run /= np.maximum(np.linalg.norm(run, axis=1, keepdims=True), 1e-9)
            near = reading.closeness(np.round((run @ questions).max(axis=1), 4)) >= PERHAPS
            spans.append(np.stack([row[some], first[some], end[some + length - 1]], axis=1)[near])
    return np.concatenate(spans)


def sentences(documents: Words, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(document, first word, end word) of every sentence of some documents, from one end to the other."""
    found = [np.empty((0, 3), np.int64)]
    for row in rows.tolist():
        first, end = int(documents.offsets[row]), int(documents.offsets[row + 1])
        base = int(documents.text_offsets[row])
        text = documents.data[base : documents.text_offsets[row + 1]].tobytes()
        stops = [base + stop.end() for stop in STOP.finditer(text)]
        bounds = np.unique(np.concatenate([[first, end], first + np.searchsorted(documents.starts[first:end], stops)]))
        cuts = [np.arange(a, b, LONGEST) for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]
        if cuts:
            begins = np.concatenate(cuts)
            found.append(np.stack([np.full(len(begins), row), begins, np.append(begins[1:], end)], axis=1))
    row_of, begin, stop = np.concatenate(found).astype(np.int64).T
    return row_of, begin, stop


def _encoded(documents: Words, first: np.ndarray, end: np.ndarray, encoder: Encoder) -> np.ndarray:
    """(n, d)."""
    texts = [text_of(documents, a, b) for a, b in zip(first.tolist(), end.tolist(), strict=True)]
    parts = [encoder.encode(texts[at : at + AT_ONCE]) for at in range(0, len(texts), AT_ONCE)]
    return np.concatenate([np.asarray(part, np.float32) for part in parts])
