"""Semantic duplicates: documents whose embeddings nearly coincide (Abbas et al., SemDeDup, arXiv:2303.09540)."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from midtrain_dagster.project.deduplication import Deduplication

ROWS, COLUMNS = 1024, 4096  # of a tile of products
PROBES = 4  # cells that a vector is compared in
SAMPLE = 256  # vectors a cell that k-means learns from


class Encoder(Protocol):
    """What turns texts into vectors."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32, L2-normalised."""


def vectors(documents: pl.DataFrame, encoder: Encoder) -> pl.DataFrame:
    """`id, text_hash, vector` (list of float32) of documents, in input order."""
    encoded = encoder.encode(documents["text"].fill_null("").to_list())
    column = pl.Series("vector", encoded, dtype=pl.Array(pl.Float32, encoded.shape[1]))
    return documents.select("id", "text_hash").with_columns(column.arr.to_list())


def semantic_clusters(parts: Iterable[pl.DataFrame], settings: Deduplication | None = None) -> pl.DataFrame:
    """`id, text_hash, semantic_cluster`, sorted by id: connected by cosine of at least `semantic`, named by the smallest id.

    `parts` are frames of `vectors`. They go to a file, and products are made a tile at a time: memory is some hundred bytes a
    document and 100 MB. Up to `semantic_exact` documents every pair is compared, n² / 2 products; beyond, as in SemDeDup, the
    pairs within cells of k-means, each vector in the PROBES cells nearest to it.
    """
    from midtrain_dagster.deduplicate.kernels import flatten, unite

    settings = settings or Deduplication()
    with tempfile.TemporaryDirectory(prefix="midtrain-vectors-") as folder:
        keys, points = _stored(parts, Path(folder) / "vectors")
        parent = np.arange(len(keys))
        every = len(keys) <= settings.semantic_exact
        for rows, columns in _pairs(len(keys)) if every else _cell_pairs(points):
            near = points[rows] @ points[columns].T >= settings.semantic
            left, right = np.nonzero(near)
            unite(parent, rows[left], columns[right])
        flatten(parent)
        del points
    named = keys.with_columns(root=pl.Series(parent)).with_columns(semantic_cluster=pl.col("id").min().over("root"))
    return named.select("id", "text_hash", "semantic_cluster").sort("id")


def _stored(parts: Iterable[pl.DataFrame], path: Path) -> tuple[pl.DataFrame, np.ndarray]:
    """`id, text_hash` of all parts, and their vectors as an (n, d) float32 array in a file."""
    keys = [pl.DataFrame(schema={"id": pl.String, "text_hash": pl.String})]
    size = 0
    with path.open("wb") as file:
        for part in filter(len, parts):
            keys.append(part.select("id", "text_hash"))
            flat = part["vector"].explode(empty_as_null=False).to_numpy().astype(np.float32)
            size = len(flat) // len(part)
            file.write(flat.tobytes())
    found = pl.concat(keys)
    return found, np.memmap(path, np.float32, "r", shape=(len(found), size)) if size else np.zeros((len(found), 0), np.float32)


def _pairs(total: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tiles (rows, columns) that hold every pair."""
    for start in range(0, total, ROWS):
        rows = np.arange(start, min(start + ROWS, total))
        for other in range(0, start + len(rows), COLUMNS):
            yield rows, np.arange(other, min(other + COLUMNS, start + len(rows)))


def _cell_pairs(points: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tiles that hold the pairs of which one vector's nearest cell is among the other's PROBES nearest. √n cells."""
    import faiss

    total, size = points.shape
    count = int(total**0.5)
    means = faiss.Kmeans(size, count, niter=10, spherical=True, seed=1, max_points_per_centroid=SAMPLE)
    means.train(np.ascontiguousarray(points[:: max(total // (SAMPLE * count), 1)]))
    nearest = np.concatenate([means.index.search(points[at : at + COLUMNS], PROBES)[1] for at in range(0, total, COLUMNS)])
    order = np.argsort(nearest.ravel(), kind="stable")
    ends = np.searchsorted(nearest.ravel()[order], np.arange(count + 1))
    for cell in range(count):
        inside = order[ends[cell] : ends[cell + 1]]
        own, near = inside[inside % PROBES == 0] // PROBES, inside // PROBES
        for start in range(0, len(own), ROWS):
            for other in range(0, len(near), COLUMNS):
                yield own[start : start + ROWS], near[other : other + COLUMNS]


def of_all(clusters: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """The semantic cluster of every document: that of the first of its near cluster, which alone was embedded."""
    first = found.select(near_cluster="id", semantic_cluster="semantic_cluster")
    return (
        clusters.join(first, on="near_cluster", how="inner").select("id", "text_hash", "source", "semantic_cluster").sort("id")
    )
