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


def semantic_clusters(documents: pl.DataFrame, encoder: Encoder, settings: Deduplication | None = None) -> pl.DataFrame:
    """`id, text_hash, semantic_cluster`, sorted by id: connected by cosine of at least `semantic`, named by the smallest id.

    Exact, block by block: n² / 2 products, so meant for what near-duplicate removal leaves of one domain.
    """
    from midtrain_dagster.deduplicate.kernels import components

    settings = settings or Deduplication()
    ordered = documents.sort("id")
    vectors = np.ascontiguousarray(encoder.encode(ordered["text"].fill_null("").to_list()), dtype=np.float32)
    left, right = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, len(vectors), BLOCK):
        rows, columns = np.nonzero(vectors[start : start + BLOCK] @ vectors[: start + BLOCK].T >= settings.semantic)
        left.append(rows + start)
        right.append(columns)
    least = components(np.concatenate(left), np.concatenate(right), len(vectors))
    return ordered.select("id", "text_hash", semantic_cluster=ordered["id"].gather(least))
