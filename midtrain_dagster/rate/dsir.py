"""DSIR: how much likelier a document is under a target distribution than under the raw one (arXiv 2302.03169).

Both are bags of unigrams and bigrams, hashed into a fixed number of buckets. Resampling by these weights is selection's part
(Gumbel top-k, `Temperature`).
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np
import polars as pl

from midtrain_dagster.code import code_version
from midtrain_dagster.errors import MidtrainError

WORDS_AND_PUNCTUATION = re.compile(r"\w+|[^\w\s]+")
SMOOTHING = 1e-8  # added to a probability before its logarithm


class Dsir:
    """Rates with the log importance weight Σ_b count_b · (log p_target(b) − log p_raw(b)) over hash buckets b."""

    def __init__(self, name: str, weights: np.ndarray, min_words: int = 100):
        """`weights` are the log ratios, float64 of shape (buckets,) (see `fit`)."""
        self.name, self.min_words, self.weights = name, min_words, weights
        about = f"{min_words}:{code_version('rate.dsir')}"
        self.version = blake2b(weights.tobytes() + about.encode(), digest_size=8).hexdigest()

    def save(self, path: Path) -> None:
        """Write the weights."""
        np.save(path, self.weights, allow_pickle=False)

    @classmethod
    def load(cls, name: str, path: Path, min_words: int = 100) -> "Dsir":
        """Read what `save` wrote."""
        if not path.is_file():
            raise MidtrainError(f"{path}: there are no such importance weights; fit them first")
        return cls(name, np.load(path, allow_pickle=False), min_words)

    def score(self, documents: pl.DataFrame) -> np.ndarray:
        """Log weights, float32 of shape (n,); NaN under `min_words` words, where the weight is mostly noise."""
        scores = np.full(len(documents), np.nan, dtype=np.float32)
        for row, text in enumerate(documents["text"].to_list()):
            words = tokenized(text)
            if len(words) >= self.min_words:
                scores[row] = self.weights[hashed(words, len(self.weights))].sum()
        return scores


def fit(name: str, target: Iterable[str], raw: Iterable[str], buckets: int = 10_000, min_words: int = 100) -> Dsir:
    """A rater that pulls towards `target` and away from `raw`. Raises MidtrainError when one of them holds no words."""
    sides = [counts(texts, buckets) for texts in (target, raw)]
    if any(side.sum() == 0 for side in sides):
        raise MidtrainError("DSIR: the target or the raw texts hold no words")
    one, other = (np.log(side / side.sum() + SMOOTHING) for side in sides)
    return Dsir(name, one - other, min_words)


def counts(texts: Iterable[str], buckets: int) -> np.ndarray:
    """How often each hash bucket occurs in the texts; float64 of shape (buckets,)."""
    total = np.zeros(buckets)
    for text in texts:
        total += np.bincount(hashed(tokenized(text), buckets), minlength=buckets)
    return total


def tokenized(text: str) -> list[str]:
    """Lower-case words and runs of punctuation."""
    return WORDS_AND_PUNCTUATION.findall(text.lower())


def hashed(words: Sequence[str], buckets: int) -> np.ndarray:
    """Buckets of all unigrams and bigrams; int64 of shape (2·words − 1,), the same on every machine."""
    if not words:
        return np.empty(0, dtype=np.int64)
    single = np.fromiter(map(_word_hash, words), dtype=np.uint64, count=len(words))
    pairs = (single[:-1] * np.uint64(0x9E3779B97F4A7C15)) ^ (single[1:] * np.uint64(0xC2B2AE3D27D4EB4F))
    mixed = np.concatenate([single, pairs])
    return ((mixed ^ (mixed >> np.uint64(33))) % np.uint64(buckets)).astype(np.int64)


@lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
