"""MinHash signatures (Broder 1997; Lee et al., arXiv:2107.06499): all that clustering needs to know of a document."""

import numpy as np
import polars as pl

from midtrain_dagster.deduplicate.bands import banding
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.deduplication import Deduplication

SIGNATURES = pl.Schema(
    {
        "id": pl.String(),
        "text_hash": pl.String(),
        # 64-bit hashes are kept as signed integers of the same bits: Delta tables have no unsigned ones.
        "exact_hash": pl.Int64(),  # of the words in lower case: equal but for case, punctuation and white space
        "words": pl.Int64(),
        "characters": pl.Int64(),
        "bands": pl.List(pl.Int64),  # one hash a band, the band's number in it; empty for a text too short
        "sketch": pl.Binary(),  # one byte a permutation, from which similarity is estimated; empty for a text too short
    }
)


def signatures(
    documents: pl.DataFrame, settings: Deduplication | None = None, progress: Progress | None = None
) -> pl.DataFrame:
    """SIGNATURES of documents (`id`, `text`, `text_hash`), in input order; each depends on its own text and the settings alone.

    Store them: `cluster` compares new documents with all old ones by signatures, without any text.
    """
    from midtrain_dagster.deduplicate import kernels

    settings = settings or Deduplication()
    bands = banding(settings)
    texts = documents["text"].fill_null("")
    lower = texts.str.to_lowercase().rechunk().to_arrow()
    offsets = np.frombuffer(lower.buffers()[1], dtype=np.int64)[lower.offset : lower.offset + len(lower) + 1]
    data = np.frombuffer(lower.buffers()[2], dtype=np.uint8) if lower.buffers()[2] is not None else np.zeros(0, np.uint8)
    total = len(documents)
    exact, words = np.zeros(total, np.uint64), np.zeros(total, np.int64)
    banded, sketch = np.zeros((total, bands.bands), np.uint64), np.zeros((total, settings.permutations), np.uint8)
    flips, factors = permutations(settings)
    if total:
        kernels.signatures(
            data,
            offsets,
            settings.ngram,
            settings.minimum_words,
            bands.bands,
            bands.rows,
            flips,
            factors,
            exact,
            words,
            banded,
            sketch,
        )
    if progress:
        progress.advance(total)
    signed = pl.Series(words >= 0)
    row_bytes = sketch.tobytes()
    width = settings.permutations
    frame = documents.select("id", "text_hash").with_columns(
        exact_hash=pl.Series(exact.view(np.int64)),
        words=pl.Series(np.where(words < 0, -words - 1, words)),
        characters=texts.str.len_chars().cast(pl.Int64),
        bands=pl.Series(banded.view(np.int64), dtype=pl.Array(pl.Int64, bands.bands)).cast(pl.List(pl.Int64)),
        sketch=pl.Series([row_bytes[i * width : (i + 1) * width] for i in range(total)], dtype=pl.Binary),
    )
    empty = pl.lit([], dtype=pl.List(pl.Int64))
    frame = frame.with_columns(
        bands=pl.when(signed).then("bands").otherwise(empty), sketch=pl.when(signed).then("sketch").otherwise(pl.lit(b""))
    )
    return frame.select(SIGNATURES.names()).cast(SIGNATURES)


def permutations(settings: Deduplication) -> tuple[np.ndarray, np.ndarray]:
    """(flips, odd factors), uint32, one a permutation; the same on every machine for one seed."""
    generator = np.random.Generator(np.random.PCG64(settings.seed))
    flips = generator.integers(0, 1 << 32, settings.permutations, dtype=np.uint32)
    factors = generator.integers(0, 1 << 32, settings.permutations, dtype=np.uint32) | np.uint32(1)
    return flips, factors
