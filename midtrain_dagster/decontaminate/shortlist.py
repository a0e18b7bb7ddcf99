"""Which documents can match at all, found in one pass over their bytes; the others are not looked at again."""

from typing import NamedTuple

import numpy as np
import polars as pl

from midtrain_dagster.cores import spread
from midtrain_dagster.decontaminate.index import BEGINNING, Index, Table
from midtrain_dagster.decontaminate.words import buffer, character_tables, plain_bytes

VOTE_LEAST = 1.8  # in words as rare as can be: the votes that a chunk needs
VOTE_SHARE = 0.3  # of a chunk's votes: of a question with 45 of 100 words exchanged 55 remain, of a reworded one about 50
BRIEF_BYTES = 1000  # of a document that is compared as a whole in any case
REACH, SPAN = 60, 100  # words between two votes, and from a chunk's first to its last


class Shortlist(NamedTuple):
    """Rows worth splitting into words, and where in them a chunk of a question was voted for."""

    rows: np.ndarray  # int64, ascending
    votes: np.ndarray  # int32 (n, 5): place in `rows`, chunk, first word, last word (of the row), share in thousandths


def with_ngrams(texts: pl.Series, index: Index, n: int) -> Shortlist:
    """Rows that share at least one n-gram (which is not hot) with a question."""
    found = _rows(*buffer(texts), index, index.seeds(n).table, n)
    return Shortlist(np.flatnonzero(found), np.empty((0, 5), np.int32))


def with_anything(texts: pl.Series, index: Index, n: int, besides: np.ndarray | None = None) -> Shortlist:
    """Rows that share an n-gram, a short question's beginning, or many rare words in one place; or that work a task's examples;
    and rows `besides`, which are looked at in any case."""
    from midtrain_dagster.decontaminate.scan_kernels import votes

    bags = index.bags
    table = (bags.table.bits, bags.table.bitmap_bits, bags.table.keys, bags.table.values, bags.table.bitmap)
    postings = (bags.weights, bags.offsets, bags.posts)
    least, share = np.float32(VOTE_LEAST), np.float32(VOTE_SHARE)
    data, offsets = buffer(texts)
    how = *character_tables(), plain_bytes(), table, postings, bags.chunk_weight, least, share, REACH, SPAN

    def part(first: int, end: int) -> np.ndarray:
        found: np.ndarray = votes(data, offsets[first : end + 1], *how)
        found[:, 0] += first
        return found

    voted = np.concatenate(spread(part, offsets))
    keep = _rows(data, offsets, index, index.seeds(n).table, n) | _rows(data, offsets, index, index.beginnings, BEGINNING)
    keep[voted[:, 0]] = True
    keep |= (texts.str.len_bytes() <= BRIEF_BYTES).fill_null(False).to_numpy()
    if index.is_code.any():
        keep |= texts.str.contains("def ", literal=True).fill_null(False).to_numpy()
    if besides is not None:
        keep[besides] = True
    rows = np.flatnonzero(keep)
    voted[:, 0] = np.searchsorted(rows, voted[:, 0])
    return Shortlist(rows, voted)


def _rows(data: np.ndarray, offsets: np.ndarray, index: Index, table: Table, n: int) -> np.ndarray:
    from midtrain_dagster.decontaminate.scan_kernels import rows_with_ngrams

    grams = index.known_words, table.bits, table.bitmap_bits, table.keys, table.values, table.bitmap
    how = *character_tables(), plain_bytes(), n, *grams
    return np.concatenate(spread(lambda a, b: rows_with_ngrams(data, offsets[a : b + 1], *how), offsets))
