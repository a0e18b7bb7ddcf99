"""Educational value, 0 to 5 (FineWeb-Edu, arXiv 2406.17557), by a head of one's own.

FineWeb-Edu keeps documents at 3 or above after rounding. The head has the published architecture over any sentence
encoder: frozen encoder, dense layer, tanh, one output, mean squared error on a teacher's scores.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.raters import HeadTraining
from midtrain_dagster.rate.coordinate import spearman
from midtrain_dagster.rate.heads import Encoder, Head, fit
from midtrain_dagster.rate.held_out import is_held_out

LOWEST, HIGHEST, THRESHOLD = 0.0, 5.0, 3


class Agreement(NamedTuple):
    """A head and its teacher on texts that the head was not trained on."""

    examples: int
    mean_absolute_error: float  # in points
    spearman: float
    exact: float  # share with the same score after rounding and clipping to 0…5
    f1_at_3: float  # of "scores 3 or more", the published cut; NaN where neither ever says so


class TrainedHead(NamedTuple):
    head: Head
    trained_on: int
    held_out: Agreement


def train(texts: Sequence[str], scores: Sequence[float], encoder: Encoder, settings: HeadTraining) -> TrainedHead:
    """Train a head on a teacher's scores of texts and report how it agrees on the held-out share.

    Raises MidtrainError for scores outside 0 to 5 and when there is too little to train or to judge on.
    """
    given = np.asarray(scores, dtype=np.float32)
    if len(given) != len(texts) or not np.all((given >= LOWEST) & (given <= HIGHEST)):
        raise MidtrainError("edu: every text needs a teacher's score between 0 and 5")
    held = np.array([is_held_out(text, settings.held_out, settings.seed) for text in texts], dtype=bool)
    if not held.any() or held.all():
        raise MidtrainError(f"edu: {len(texts)} scored texts are too few to train on some and be judged on others")
    embeddings = encoder.encode(texts)
    head = _fit(embeddings[~held], given[~held], settings)
    return TrainedHead(head, int((~held).sum()), agreement(head(embeddings[held]), given[held]))


def _fit(embeddings: np.ndarray, scores: np.ndarray, settings: HeadTraining) -> Head:
    import torch

    vectors, wanted = torch.from_numpy(embeddings.astype(np.float32)), torch.from_numpy(scores)

    def loss(network: Any, rows: np.ndarray) -> Any:
        return torch.nn.functional.mse_loss(network(vectors[rows]), wanted[rows])

    return fit(len(scores), embeddings.shape[1], settings, float(scores.mean()), loss)


def agreement(predicted: np.ndarray, given: np.ndarray) -> Agreement:
    """How scores (n,) agree with a teacher's (n,)."""
    ours = np.clip(np.round(predicted), LOWEST, HIGHEST)
    theirs = np.clip(np.round(given), LOWEST, HIGHEST)
    both = int(((ours >= THRESHOLD) & (theirs >= THRESHOLD)).sum())
    either = int((ours >= THRESHOLD).sum() + (theirs >= THRESHOLD).sum())
    return Agreement(
        examples=len(given),
        mean_absolute_error=float(np.abs(predicted - given).mean()),
        spearman=spearman(predicted, given),
        exact=float((ours == theirs).mean()),
        f1_at_3=2 * both / either if either else float("nan"),
    )
