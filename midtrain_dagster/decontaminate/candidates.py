"""Where in the documents a question may stand: regions found by shared n-grams, or by rare words that stand together."""

from typing import NamedTuple

import numpy as np

from midtrain_dagster.decontaminate.index import Index
from midtrain_dagster.decontaminate.words import Words

GAP = 80  # words between two hits of one region, at least
BLOCK, STRONGEST = 32, 12  # units kept where regions begin within so many words of a document
MARGIN = 60  # words beside a region that the alignment may use


class Regions(NamedTuple):
    """Candidate regions, sorted by row, unit, place; word positions count from the first document's first word."""

    rows: np.ndarray  # int64 document
    units: np.ndarray
    first: np.ndarray
    end: np.ndarray
    hits: np.ndarray  # distinct n-gram places, 0 for regions from rare words


def by_ngrams(documents: Words, index: Index, n: int) -> Regions:
    """Regions that share at least one n-gram (which is not hot) with a unit."""
    from midtrain_dagster.decontaminate.kernels import scan

    seeds = index.seeds(n)
    table = seeds.table
    rows, places, numbers = scan(
        documents.words, documents.offsets, n, table.bits, table.bitmap_bits, table.keys, table.values, table.bitmap
    )
    repeats = (seeds.offsets[1:] - seeds.offsets[:-1])[numbers]
    posting = np.repeat(seeds.offsets[numbers] - np.concatenate([[0], np.cumsum(repeats)[:-1]]), repeats) + np.arange(
        repeats.sum()
    )
    units = seeds.units[posting]
    return _regions(documents, index, np.repeat(rows, repeats), units, np.repeat(places, repeats), np.ones(len(units)), n)


def by_votes(documents: Words, index: Index, votes: np.ndarray) -> Regions:
    """Regions where much of a unit's rare words stand together, in any order, inflected as may be (`shortlist.votes`)."""
    rows, units = votes[:, 0], index.bags.chunk_unit[votes[:, 1]]
    base = documents.offsets[rows]
    places = np.concatenate([base + votes[:, 2], base + votes[:, 3]])
    found = _regions(documents, index, np.tile(rows, 2), np.tile(units, 2), places, np.tile(votes[:, 4], 2), 1)
    return found._replace(hits=np.zeros_like(found.hits))


def joined(one: Regions, two: Regions) -> Regions:
    """Both, without the second's regions that the first has for the same document and unit in an overlapping place."""
    keys: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, unit, first, end in zip(one.rows.tolist(), one.units.tolist(), one.first.tolist(), one.end.tolist(), strict=True):
        keys.setdefault((row, unit), []).append((first, end))
    fresh = np.array(
        [
            not any(first < e and f < end for f, e in keys.get((row, unit), ()))
            for row, unit, first, end in zip(
                two.rows.tolist(), two.units.tolist(), two.first.tolist(), two.end.tolist(), strict=True
            )
        ],
        bool,
    )
    parts = [np.concatenate([a, b[fresh]]) for a, b in zip(one, two, strict=True)]
    order = np.lexsort((parts[2], parts[1], parts[0]))
    return Regions(*(part[order] for part in parts))


def _strongest(found: np.ndarray) -> np.ndarray:
    """The units with most hits at each place of a document: a template shared by hundreds of questions is not hundreds of cases."""
    block = found[:, 2] // BLOCK
    order = np.lexsort((found[:, 1], -found[:, 4], block, found[:, 0]))
    row, block = found[order, 0], block[order]
    fresh = np.concatenate([[True], (row[1:] != row[:-1]) | (block[1:] != block[:-1])]) if len(order) else np.empty(0, bool)
    starts = np.flatnonzero(fresh)
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return found[np.sort(order[rank < STRONGEST])]


def _regions(
    documents: Words, index: Index, rows: np.ndarray, units: np.ndarray, places: np.ndarray, strengths: np.ndarray, width: int
) -> Regions:
    """Hits that lie within a question's length of each other are one region, widened so that the rest of it fits."""
    from midtrain_dagster.decontaminate.kernels import clusters

    length = np.diff(index.units.offsets)
    order = np.lexsort((places, units, rows))
    found = clusters(
        rows[order].astype(np.int64),
        units[order].astype(np.int64),
        places[order],
        strengths[order].astype(np.int64),
        np.maximum(length, GAP),
    )
    found = _strongest(found)
    row, unit = found[:, 0], found[:, 1]
    margin = np.minimum(length[unit], 400) // 2 + MARGIN
    first = np.maximum(documents.offsets[row], found[:, 2] - margin)
    end = np.minimum(documents.offsets[row + 1], found[:, 3] + width + margin)
    return Regions(row, unit, first, end, found[:, 4])
