"""Batches for model raters: texts of like length together, in shapes that do not depend on their neighbours."""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np


def length_buckets(lengths: Sequence[int], tokens_per_batch: int, multiple: int = 32) -> Iterator[tuple[np.ndarray, int]]:
    """Rows of each batch and the width that they are padded to: their length rounded up to `multiple`.

    A text's width is its own, so its score does not hang on which longer text it was batched with (beyond rounding in the
    matrix kernels, which differ with the number of rows; raters round their scores for that). Rows of length 0 are in no
    batch.
    """
    size = np.asarray(lengths, dtype=np.int64)
    widths = (size + multiple - 1) // multiple * multiple
    for width in np.unique(widths[size > 0]):
        rows = np.flatnonzero(widths == width)
        most = max(1, tokens_per_batch // int(width))
        for start in range(0, len(rows), most):
            yield rows[start : start + most], int(width)


def padded(tokens: Sequence[Sequence[int]], width: int, filler: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and attention mask, both int64 of shape (rows, width), padded on the right."""
    ids = np.full((len(tokens), width), filler, dtype=np.int64)
    mask = np.zeros((len(tokens), width), dtype=np.int64)
    for row, sequence in enumerate(tokens):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask


def rounded(scores: np.ndarray, digits: int = 5) -> np.ndarray:
    """float32 scores with so many significant decimal digits: fewer than the batch's shape can change."""
    scores = np.asarray(scores, dtype=np.float64)
    usual = np.isfinite(scores) & (scores != 0)
    magnitude = np.floor(np.log10(np.abs(scores, where=usual, out=np.ones_like(scores))))
    scale = 10.0 ** (digits - 1 - magnitude)
    return np.where(usual, np.round(scores * scale) / scale, scores).astype(np.float32)


def model_version(model: str, commit: str | None, *settings: object) -> str:
    """Version of a rater over a model: a hash of the directory's weights and configuration, or the hub's commit."""
    digest = blake2b(digest_size=8)
    directory = Path(model)
    if directory.is_dir():
        for path in sorted(p for p in directory.iterdir() if p.suffix in (".json", ".safetensors", ".txt", ".model")):
            digest.update(path.name.encode())
            with path.open("rb") as file:
                while block := file.read(1 << 24):
                    digest.update(block)
    else:
        digest.update(f"{model}@{commit}".encode())
    digest.update(repr(settings).encode())
    return digest.hexdigest()
