"""Meaning: windows of documents and questions as vectors, nearest neighbours by FAISS."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from midtrain_dagster.decontaminate.index import Index
from midtrain_dagster.decontaminate.words import Words

WINDOW, STRIDE = 64, 48  # words; a question is seldom longer, and an encoder reads 256 tokens
TOP = 3  # questions kept for a window
FLAT_LIMIT, IVF_LIMIT = 50_000, 2_000_000  # vectors: exact below, inverted lists below, a graph above
BATCH = 1024


class Encoder(Protocol):
    """Anything that turns texts into vectors."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32, L2-normalised."""


class Neighbours(NamedTuple):
    """Windows of documents and their nearest units."""

    rows: np.ndarray
    first: np.ndarray  # word positions
    end: np.ndarray
    units: np.ndarray
    cosine: np.ndarray


def nearest_questions(documents: Words, index: Index, encoder: Encoder, floor: float) -> Neighbours:
    """Each window's TOP units with a cosine of at least `floor`."""
    rows, first, end = windows(documents)
    search = _search(_encode([index.text(u) for u in range(len(index))], encoder))
    found: list[tuple[np.ndarray, ...]] = []
    for at in range(0, len(rows), BATCH):
        part = slice(at, at + BATCH)
        vectors = _encode([text_of(documents, a, b) for a, b in zip(first[part], end[part], strict=True)], encoder)
        cosine, units = search.search(vectors, min(TOP, len(index)))
        keep = (cosine >= floor) & (units >= 0)
        which = np.nonzero(keep)[0] + at
        found.append((rows[which], first[which], end[which], units[keep], np.clip(cosine[keep], 0, 1)))
    if not found:
        found = [(rows, first, end, np.empty(0, np.int64), np.empty(0, np.float32))]
    return Neighbours(*(np.concatenate(column) for column in zip(*found, strict=True)))


def cosines(
    documents: Words, spans: Sequence[tuple[int, int]], units: Sequence[int], index: Index, encoder: Encoder
) -> np.ndarray:
    """Cosine of each span of document words with its unit."""
    if not spans:
        return np.empty(0, np.float32)
    wanted = sorted(set(units))
    questions = dict(zip(wanted, _encode([index.text(u) for u in wanted], encoder), strict=True))
    vectors = _encode([text_of(documents, a, b) for a, b in spans], encoder)
    return np.array([float(v @ questions[u]) for v, u in zip(vectors, units, strict=True)], np.float32).clip(0, 1)


def windows(documents: Words) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(document, first word, end word) of overlapping windows over every document with words."""
    rows, first, end = [], [], []
    for row in range(len(documents)):
        begin, stop = int(documents.offsets[row]), int(documents.offsets[row + 1])
        for at in range(begin, max(begin, stop - (WINDOW - STRIDE)) + (stop > begin), STRIDE):
            if at < stop:
                rows.append(row)
                first.append(at)
                end.append(min(at + WINDOW, stop))
    return np.array(rows, np.int64), np.array(first, np.int64), np.array(end, np.int64)


def text_of(documents: Words, first: int, end: int) -> str:
    """The document's own text from the first word to the last."""
    if end <= first:
        return ""
    return documents.data[documents.starts[first] : documents.ends[end - 1]].tobytes().decode("utf-8", "replace")


def _encode(texts: Sequence[str], encoder: Encoder) -> np.ndarray:
    return np.ascontiguousarray(encoder.encode(list(texts)), np.float32)


def _search(vectors: np.ndarray) -> Any:
    import faiss

    count, size = vectors.shape
    search: Any
    if count <= FLAT_LIMIT:
        search = faiss.IndexFlatIP(size)
    elif count <= IVF_LIMIT:
        lists = int(4 * np.sqrt(count))
        search = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, lists, faiss.METRIC_INNER_PRODUCT)
        search.nprobe = max(16, lists // 32)
        search.train(vectors)
    else:
        search = faiss.IndexHNSWFlat(size, 32, faiss.METRIC_INNER_PRODUCT)
    search.add(vectors)
    return search
