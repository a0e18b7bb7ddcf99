"""Rating: one number per document and rater, with the version of the rater that gave it."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.progress import Progress

BATCH_DOCUMENTS = 4096


class Rater(Protocol):
    """Scores documents. Equal name and version give a text the same score, whatever else is in the frame."""

    @property
    def name(self) -> str:
        """The column of its scores."""

    @property
    def version(self) -> str:
        """Changes whenever a score could: a hash of the model, its settings and the code that scores."""

    def score(self, documents: pl.DataFrame) -> np.ndarray:
        """Scores of the rows of `documents` (id, text): float32, shape (n,), NaN where it cannot rate."""


def rate(documents: pl.DataFrame, raters: Sequence[Rater], progress: Progress | None = None) -> pl.DataFrame:
    """Ratings of documents (id, text, text_hash), in their order.

    Columns: id, text_hash, and for each rater its score `<name>` (Float32, null where it cannot rate) and `<name>_version`.
    """
    batches = list(rate_batches(documents, raters, progress))
    return pl.concat(batches) if batches else _rated(documents, raters)


def rate_batches(
    documents: pl.DataFrame, raters: Sequence[Rater], progress: Progress | None = None, size: int = BATCH_DOCUMENTS
) -> Iterator[pl.DataFrame]:
    """The same, batch by batch: a caller that stores each as it comes can go on where it stopped (see `unrated`)."""
    for start in range(0, len(documents), size):
        batch = documents.slice(start, size)
        yield _rated(batch, raters)
        if progress:
            progress.advance(len(batch))


def _rated(documents: pl.DataFrame, raters: Sequence[Rater]) -> pl.DataFrame:
    names = [rater.name for rater in raters]
    if len(set(names)) < len(names):
        raise MidtrainError(f"two raters share a name: {', '.join(names)}")
    columns: list[pl.Series] = []
    for rater in raters:
        scores = np.asarray(rater.score(documents.select("id", pl.col("text").fill_null(""))), dtype=np.float32)
        if scores.shape != (len(documents),):
            raise ValueError(f"{rater.name} gave {scores.shape} scores for {len(documents)} documents")
        columns.append(pl.Series(rater.name, scores, dtype=pl.Float32).fill_nan(None))
        columns.append(pl.Series(f"{rater.name}_version", [rater.version] * len(documents), dtype=pl.String))
    return documents.select("id", "text_hash").with_columns(columns)


def unrated(documents: pl.DataFrame, ratings: pl.DataFrame, rater: Rater) -> pl.DataFrame:
    """The documents whose present text this version of the rater has not seen yet."""
    version = f"{rater.name}_version"
    if version not in ratings.columns:
        return documents
    seen = ratings.filter(pl.col(version) == rater.version).select("id", "text_hash")
    return documents.join(seen, on=["id", "text_hash"], how="anti", maintain_order="left")


def merged(ratings: pl.DataFrame, newer: pl.DataFrame) -> pl.DataFrame:
    """One row per document and text: the newer ratings where they rated, sorted by id."""
    keys = ["id", "text_hash"]
    both = ratings.join(newer, on=keys, how="full", coalesce=True, suffix="__newer")
    columns: list[pl.Expr] = []
    for name in newer.columns:
        if name in keys or f"{name}__newer" not in both.columns:
            continue
        version = name if name.endswith("_version") else f"{name}_version"
        again = f"{version}__newer" if f"{version}__newer" in both.columns else version
        columns.append(pl.when(pl.col(again).is_not_null()).then(pl.col(f"{name}__newer")).otherwise(pl.col(name)).alias(name))
    return both.with_columns(columns).drop([c for c in both.columns if c.endswith("__newer")]).sort(keys)
