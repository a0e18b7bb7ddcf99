"""QuRating (arXiv 2402.09739): a teacher chooses between two texts; a scorer learns the scale behind its choices.

The Bradley–Terry model: P(A preferred to B) = σ(s_A − s_B). Judgements are asked for in both orders, for judges prefer a
position; and judges like long texts, so what the scorer has learnt of length is reported. Published texts are 256 to 512
tokens long and the scorer is a 1.3B model; here it is a head on any sentence encoder.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.raters import HeadTraining
from midtrain_dagster.rate.coordinate import spearman
from midtrain_dagster.rate.heads import Encoder, Head, fit
from midtrain_dagster.rate.held_out import is_held_out

CRITERIA = {
    "writing_style": "has the better writing style",
    "required_expertise": "takes more expertise and prior knowledge to understand",
    "facts_and_trivia": "holds more facts and trivia, above all little-known ones",
    "educational_value": "is of more educational value, with clear explanations, reasoning steps or worked answers",
}
"""What a judge is asked: which of two texts …"""

JUDGED_SCHEMA = pl.Schema(
    {
        "first": pl.Int64,  # row of a text
        "second": pl.Int64,
        "first_then_second": pl.Float64,  # P(first preferred), shown first
        "second_then_first": pl.Float64,  # P(first preferred), shown second
        "preference": pl.Float64,  # mean of both: P(first preferred)
    }
)


class Judge(Protocol):
    """Compares two texts: a language model, or people."""

    def prefer(self, pairs: Sequence[tuple[str, str]], criterion: str) -> Sequence[float | None]:
        """For each pair the probability that its first text fits the criterion better; None where no answer came."""


class LearntScale(NamedTuple):
    """A scorer of one criterion, and what is to be known of the judgements and of itself."""

    head: Head
    trained_on: int  # confident pairs of two texts that are both in the training share
    held_out: int  # confident pairs of which both texts are held out
    held_out_accuracy: float  # share of those that it orders as the judge does; NaN where there are none
    position_bias: float  # mean of P(preferred | shown first) − ½; 0 for a judge who ignores the order
    judged_length_bias: float  # Spearman of the preference with the difference in log length
    length_bias: float  # Spearman of the score with log length


def pairs(texts: int, count: int, seed: int) -> np.ndarray:
    """Rows of `count` different pairs of different texts, at random; int64 of shape (count, 2)."""
    possible = texts * (texts - 1) // 2
    if possible < count:
        raise MidtrainError(f"qurater: {texts} texts make only {possible} pairs, not {count}")
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, int], None] = {}
    while len(found) < count:
        drawn = rng.integers(0, texts, size=(2 * count, 2))
        for low, high in np.sort(drawn, axis=1).tolist():
            if low != high and len(found) < count:
                found[low, high] = None
    return np.array(list(found), dtype=np.int64).reshape(count, 2)


def pairs_apart(texts: Sequence[str], count: int, settings: HeadTraining) -> np.ndarray:
    """About `count` pairs, each of two texts that the head learns from or of two that it is judged on: no judgement of a mixed
    pair could be used. Fewer where the texts make no more. int64 of shape (pairs, 2).
    """
    held = np.array([is_held_out(text, settings.held_out, settings.seed) for text in texts], dtype=bool)
    sides = []
    for rows, share in ((np.flatnonzero(~held), 1 - settings.held_out), (np.flatnonzero(held), settings.held_out)):
        most = min(round(share * count), len(rows) * (len(rows) - 1) // 2)
        sides.append(rows[pairs(len(rows), most, settings.seed)])
    return np.concatenate(sides)


def judged(
    texts: Sequence[str], drawn: np.ndarray, criterion: str, judge: Judge, progress: Progress | None = None, batch: int = 64
) -> pl.DataFrame:
    """Ask for each pair in both orders; JUDGED_SCHEMA. A pair without both answers is left out: compare the lengths."""
    rows: list[dict[str, float]] = []
    for start in range(0, len(drawn), batch):
        some = [(int(a), int(b)) for a, b in drawn[start : start + batch]]
        forward = judge.prefer([(texts[a], texts[b]) for a, b in some], criterion)
        backward = judge.prefer([(texts[b], texts[a]) for a, b in some], criterion)
        for (a, b), one, two in zip(some, forward, backward, strict=True):
            if one is not None and two is not None:
                other = 1 - two
                rows.append(
                    {
                        "first": a,
                        "second": b,
                        "first_then_second": one,
                        "second_then_first": other,
                        "preference": (one + other) / 2,
                    }
                )
        if progress:
            progress.advance(len(some))
    return pl.DataFrame(rows, schema=JUDGED_SCHEMA)


def train(
    texts: Sequence[str], judgements: pl.DataFrame, encoder: Encoder, settings: HeadTraining, confidence: float = 0.5
) -> LearntScale:
    """Learn the scale behind judgements (JUDGED_SCHEMA) by binary cross-entropy on the soft preferences.

    Pairs with |2p − 1| under `confidence` are not learnt from. The split is by text: no text of a held-out pair was trained on.
    Raises MidtrainError when no confident pair is left to learn from.
    """
    confident = judgements.filter((2 * pl.col("preference") - 1).abs() >= confidence)
    held = np.array([is_held_out(text, settings.held_out, settings.seed) for text in texts], dtype=bool)
    rows, wanted = confident.select("first", "second").to_numpy(), confident["preference"].to_numpy()
    learning, testing = ~held[rows].any(axis=1), held[rows].all(axis=1)
    if not learning.any():
        raise MidtrainError(f"qurater: of {len(judgements)} judgements none is confident enough to learn from")
    embeddings = encoder.encode(texts)
    head = _fit(embeddings, rows[learning], wanted[learning], settings)
    scores = head(embeddings)
    ordered = (scores[rows[testing, 0]] > scores[rows[testing, 1]]) == (wanted[testing] > 0.5)
    lengths = np.log([max(len(text), 1) for text in texts])
    longer = lengths[judgements["first"].to_numpy()] - lengths[judgements["second"].to_numpy()]
    shown_first = (judgements["first_then_second"] - judgements["second_then_first"]).to_numpy() / 2
    return LearntScale(
        head=head,
        trained_on=int(learning.sum()),
        held_out=int(testing.sum()),
        held_out_accuracy=float(ordered.mean()) if testing.any() else float("nan"),
        position_bias=float(shown_first.mean()),
        judged_length_bias=spearman(judgements["preference"].to_numpy(), longer),
        length_bias=spearman(scores, lengths),
    )


def _fit(embeddings: np.ndarray, rows: np.ndarray, wanted: np.ndarray, settings: HeadTraining) -> Head:
    import torch

    vectors, preference = torch.from_numpy(embeddings.astype(np.float32)), torch.from_numpy(wanted.astype(np.float32))

    def loss(network: Any, batch: np.ndarray) -> Any:
        margin = network(vectors[rows[batch, 0]]) - network(vectors[rows[batch, 1]])
        return torch.nn.functional.binary_cross_entropy_with_logits(margin, preference[batch])

    return fit(len(rows), embeddings.shape[1], settings, 0.0, loss)
