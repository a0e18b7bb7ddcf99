"""How good a rater is on examples that it was not trained on."""

from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import polars as pl


class HeldOut(NamedTuple):
    """A binary rater on held-out examples."""

    examples: int
    average_precision: float  # area under precision–recall as a step function; the share of positives for a useless rater
    expected_calibration_error: float  # mean |confidence − accuracy| over ten bins, weighted by their size (arXiv 1706.04599)
    curve: pl.DataFrame  # threshold, precision, recall: one row per distinct score, falling
    calibration: pl.DataFrame  # confidence, accuracy, examples: one row per occupied bin


def is_held_out(text: str, share: float, seed: int) -> bool:
    """Whether a text belongs to the held-out share: by its hash, so equal texts never stand on both sides."""
    digest = blake2b(f"{seed}:{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def judge(scores: np.ndarray, labels: np.ndarray, bins: int = 10) -> HeldOut:
    """Precision–recall and calibration of probabilities `scores` (n,) against `labels` (n,) of 0 and 1."""
    order = np.argsort(-scores, kind="stable")
    falling, hits = scores[order].astype(np.float64), labels[order].astype(np.int64)
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)  # ties share one point of the curve
    found = np.cumsum(hits)[last]
    precision, recall = found / (last + 1), found / max(int(hits.sum()), 1)
    average = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    bin_of = np.minimum((scores.astype(np.float64) * bins).astype(np.int64), bins - 1)
    size = np.bincount(bin_of, minlength=bins)
    some = size > 0
    confidence = np.bincount(bin_of, weights=scores.astype(np.float64), minlength=bins)[some] / size[some]
    accuracy = np.bincount(bin_of, weights=labels.astype(np.float64), minlength=bins)[some] / size[some]
    error = float(np.sum(np.abs(confidence - accuracy) * size[some]) / len(scores))
    return HeldOut(
        examples=len(scores),
        average_precision=average,
        expected_calibration_error=error,
        curve=pl.DataFrame({"threshold": falling[last], "precision": precision, "recall": recall}),
        calibration=pl.DataFrame({"confidence": confidence, "accuracy": accuracy, "examples": size[some]}),
    )
