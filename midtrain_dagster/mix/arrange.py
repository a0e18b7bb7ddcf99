"""From pieces of documents to sequences: which piece lies where. Lengths only; no token is touched.

A piece is a row `row, start, length`: tokens `start … start + length` of a document. An arrangement is a table of spans
`sequence, start, length, row, document_offset`, sorted by sequence and start.
"""

import numpy as np


def best_fit(pieces: np.ndarray, length: int, max_padding: float, rng: np.random.Generator, spare: int = 0) -> np.ndarray:
    """Best-fit decreasing (arXiv 2404.10830): a document that fits into a sequence is whole in one.

    Longer ones fill sequences from their beginning, the rest of them is packed like a document. Where padding would exceed
    `max_padding` and cutting saves a sequence, the sequences with most room are dissolved and their pieces fill the gaps.
    `spare` sequences do not count as padding: the caller hands them on.
    """
    from midtrain_dagster.mix import kernels

    parts = chunks(pieces[rng.permutation(len(pieces))], length)
    parts = parts[np.argsort(-parts[:, 2], kind="stable")]
    where, room = kernels.best_fit(parts[:, 2], length)
    if max_padding < 1:
        parts, where = _fill_gaps(parts, where, room, length, max_padding, spare)
        if spare:
            parts, where = _draw_on_spare(parts, where, length, max_padding)
    return _spans(parts, where, rng)


def concatenate(pieces: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Documents in random order, one after another, cut where a sequence ends; only the last sequence has padding."""
    parts = pieces[rng.permutation(len(pieces))]
    begin = np.cumsum(parts[:, 2]) - parts[:, 2]
    first, last = begin // length, (begin + parts[:, 2] - 1) // length
    repeats = last - first + 1
    index = np.repeat(np.arange(len(parts)), repeats)
    sequence = np.arange(len(index)) - np.repeat(np.cumsum(repeats) - repeats, repeats) + first[index]
    left = np.maximum(sequence * length, begin[index])
    right = np.minimum((sequence + 1) * length, begin[index] + parts[index, 2])
    offset = parts[index, 1] + left - begin[index]
    return np.stack([sequence, left - sequence * length, right - left, parts[index, 0], offset], axis=1)


def chunks(pieces: np.ndarray, length: int) -> np.ndarray:
    """Cut pieces longer than a sequence into whole sequences and a rest."""
    repeats = -(-pieces[:, 2] // length)
    index = np.repeat(np.arange(len(pieces)), repeats)
    step = (np.arange(len(index)) - np.repeat(np.cumsum(repeats) - repeats, repeats)) * length
    return np.stack([pieces[index, 0], pieces[index, 1] + step, np.minimum(pieces[index, 2] - step, length)], axis=1)


def _fill_gaps(
    parts: np.ndarray, where: np.ndarray, room: np.ndarray, length: int, max_padding: float, spare: int
) -> tuple[np.ndarray, np.ndarray]:
    """Dissolve as few sequences as bring padding down to `max_padding` (or to what the number of tokens allows)."""
    total = int(parts[:, 2].sum())
    fewest = max(-(-total // length), int(np.ceil(total / (1 - max_padding) / length - 1)) if max_padding else 0)
    surplus = len(room) - spare - fewest
    padding = 1 - total / max((len(room) - spare) * length, 1)
    if padding <= max_padding or surplus <= 0:
        return parts, where
    dissolved = np.sort(np.argsort(-room, kind="stable")[:surplus])
    keep = np.ones(len(room), bool)
    keep[dissolved] = False
    renumbered = np.cumsum(keep) - 1
    stays = keep[where]
    kept_parts, kept_where = parts[stays], renumbered[where[stays]]
    moved, moved_where = _poured(parts[~stays], np.argsort(-room[keep], kind="stable"), room[keep])
    return np.concatenate([kept_parts, moved]), np.concatenate([kept_where, moved_where])


def _draw_on_spare(parts: np.ndarray, where: np.ndarray, length: int, max_padding: float) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of the emptiest sequence, which the caller hands on, fill the widest gaps of the others until these have no more
    padding than `max_padding`; what is left stays in it."""
    room = length - np.bincount(where, weights=parts[:, 2]).astype(np.int64)
    if len(room) < 2:
        return parts, where
    emptiest = int(np.argmax(room))
    gaps = np.argsort(-room, kind="stable")
    gaps = gaps[(gaps != emptiest) & (room[gaps] > 0)]
    left = room[gaps].sum() - np.concatenate([[0], np.cumsum(room[gaps])])  # padding once the first k gaps are filled
    enough = int(np.argmax(left <= max_padding * (len(room) - 1) * length))
    if not enough:
        return parts, where
    room[emptiest] = length
    own = where == emptiest
    moved, moved_where = _poured(parts[own], np.append(gaps[:enough], emptiest), room)
    if not (moved_where == emptiest).any():  # all of it went into gaps: sequences are numbered without it
        moved_where, rest = moved_where - (moved_where > emptiest), where[~own] - (where[~own] > emptiest)
        return np.concatenate([parts[~own], moved]), np.concatenate([rest, moved_where])
    return np.concatenate([parts[~own], moved]), np.concatenate([where[~own], moved_where])


def _poured(loose: np.ndarray, gaps: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loose pieces, end to end, flow into gaps in the order given (widest first: few cuts), cut where a gap is full.

    Returns the pieces and the sequence of each. The gaps must have room for all."""
    gap_end = np.cumsum(room[gaps])
    piece_end = np.cumsum(loose[:, 2])
    edges = np.union1d(gap_end[gap_end < piece_end[-1]], piece_end)
    begin = np.concatenate([[0], edges[:-1]])
    piece = np.searchsorted(piece_end, begin, side="right")
    gap = np.searchsorted(gap_end, begin, side="right")
    start = loose[piece, 1] + begin - (piece_end[piece] - loose[piece, 2])
    return np.stack([loose[piece, 0], start, edges - begin], axis=1), gaps[gap]


def _spans(parts: np.ndarray, where: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Spans of the parts, in random order within each sequence."""
    order = np.lexsort((rng.permutation(len(parts)), where))
    parts, where = parts[order], where[order]
    end = np.cumsum(parts[:, 2])
    new = np.ones(len(where), bool)
    new[1:] = where[1:] != where[:-1]
    sequence_begin = np.repeat((end - parts[:, 2])[new], np.diff(np.append(np.flatnonzero(new), len(where))))
    return np.stack([where, end - parts[:, 2] - sequence_begin, parts[:, 2], parts[:, 0], parts[:, 1]], axis=1)


def without_emptiest(spans: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Spans without those of the sequence with the most room, renumbered; and its pieces. All stay where none has room."""
    used = np.bincount(spans[:, 0], weights=spans[:, 2])
    emptiest = int(np.argmin(used))
    if used[emptiest] == length:
        return spans, np.empty((0, 3), np.int64)
    own = spans[:, 0] == emptiest
    rest = spans[~own].copy()
    rest[:, 0] -= rest[:, 0] > emptiest
    return rest, spans[own][:, [3, 4, 2]]


def shuffled(spans: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same sequences in uniformly random order, numbered from 0."""
    if not len(spans):
        return spans
    place = rng.permutation(int(spans[:, 0].max()) + 1)
    result = spans.copy()
    result[:, 0] = place[spans[:, 0]]
    return result[np.lexsort((result[:, 1], result[:, 0]))]
