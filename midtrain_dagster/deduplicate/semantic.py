"""Semantic duplicates: documents whose embeddings nearly coincide (Abbas et al., SemDeDup, arXiv:2303.09540)."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import polars as pl

from midtrain_dagster.project.deduplication import Deduplication

BLOCK = 1024


class Encoder(Protocol):
    """What turns texts into vectors."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32, L2-normalised."""


def vectors(documents: pl.DataFrame, encoder: Encoder) -> pl.DataFrame:
    """`id, text_hash, vector` (list of float32) of documents, in input order."""
    encoded = encoder.encode(documents["text"].fill_null("").to_list())
    column = pl.Series("vector", encoded, dtype=pl.Array(pl.Float32, encoded.shape[1]))
    return documents.select("id", "text_hash").with_columns(column.arr.to_list())


def semantic_clusters(vectors: pl.DataFrame, settings: Deduplication | None = None) -> pl.DataFrame:
    """`id, text_hash, semantic_cluster`, sorted by id: connected by cosine of at least `semantic`, named by the smallest id.

    Exact, block by block: n² / 2 products, so meant for what near-duplicate removal leaves.
    """
    from midtrain_dagster.deduplicate.kernels import components

    settings = settings or Deduplication()
    ordered = vectors.sort("id")
    points = np.array(ordered["vector"].to_list(), dtype=np.float32).reshape(len(ordered), -1)
    left, right = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, len(points), BLOCK):
        rows, columns = np.nonzero(points[start : start + BLOCK] @ points[: start + BLOCK].T >= settings.semantic)
        left.append(rows + start)
        right.append(columns)
    least = components(np.concatenate(left), np.concatenate(right), len(points))
    return ordered.select("id", "text_hash", semantic_cluster=ordered["id"].gather(least))


def of_all(clusters: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """The semantic cluster of every document: that of the first of its near cluster, which alone was embedded."""
    first = found.select(near_cluster="id", semantic_cluster="semantic_cluster")
    return (
        clusters.join(first, on="near_cluster", how="inner").select("id", "text_hash", "source", "semantic_cluster").sort("id")
    )
