"""Several raters, one decision: ways to bring their scores together, and a report of where they differ.

Every function takes and returns columns of ratings; null is "not rated" and stays null where the method needs the score.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from midtrain_dagster.errors import MidtrainError


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation of two series (n,), ties at their mean rank; NaN when one of them never varies."""
    if len(one) < 2:
        return float("nan")
    ranks = [pl.Series(np.asarray(x, dtype=np.float64)).rank("average").to_numpy() for x in (one, other)]
    centred = [x - x.mean() for x in ranks]
    norm = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum() / norm) if norm else float("nan")


def percentile_buckets(scores: pl.Series, tokens: pl.Series | None = None, buckets: int = 20) -> pl.Series:
    """The bucket, 0 (lowest) to `buckets` − 1, that a score falls into when each holds the same share of tokens.

    Equal scores share a bucket: that of the middle of their tokens. Null for null. (Nemotron-CC, arXiv 2412.02595.)
    """
    weights = pl.Series([1.0] * len(scores)) if tokens is None else tokens.cast(pl.Float64)
    frame = pl.DataFrame({"score": scores.cast(pl.Float64).fill_nan(None), "weight": weights})
    rated = frame.drop_nulls("score").group_by("score").agg(pl.col("weight").sum()).sort("score")
    if rated.is_empty():
        return pl.Series(scores.name, [None] * len(scores), dtype=pl.Int32)
    middle = pl.col("weight").cum_sum() - pl.col("weight") / 2
    bucket = (middle / pl.col("weight").sum() * buckets).floor().clip(0, buckets - 1).cast(pl.Int32)
    found = frame.join(rated.select("score", bucket=bucket), on="score", how="left", maintain_order="left")["bucket"]
    return found.alias(scores.name)


def bucket_maximum(ratings: pl.DataFrame, tokens: pl.Series | None = None, buckets: int = 20) -> pl.Series:
    """The highest percentile bucket that any rater gives a document: one admirer is enough (Nemotron-CC)."""
    return ratings.select([percentile_buckets(ratings[name], tokens, buckets) for name in ratings.columns]).max_horizontal()


def intersection(ratings: pl.DataFrame, at_least: Mapping[str, float]) -> pl.Series:
    """Whether every rater gives at least its threshold; null where one that could decide has not rated."""
    return ratings.select(pl.all_horizontal([pl.col(name).fill_nan(None) >= low for name, low in at_least.items()])).to_series()


def standardised(ratings: pl.DataFrame) -> pl.DataFrame:
    """z-scores of each column; a column that never varies becomes 0."""
    columns = [pl.col(name).cast(pl.Float64).fill_nan(None) for name in ratings.columns]
    spread = [pl.when(c.std(ddof=0) > 0).then(c.std(ddof=0)).otherwise(1.0) for c in columns]
    return ratings.select([((c - c.mean()) / s) for c, s in zip(columns, spread, strict=True)])


def weighted_sum(ratings: pl.DataFrame, weights: Mapping[str, float]) -> pl.Series:
    """Σ weight · z-score (Meta-rater, arXiv 2504.14194); null where a rater with a weight has not rated."""
    missing = sorted(set(weights) - set(ratings.columns))
    if missing:
        raise MidtrainError(f"weighted sum: no ratings by {', '.join(missing)}")
    scaled = standardised(ratings.select(list(weights)))
    terms = [pl.col(name) * weight for name, weight in weights.items()]
    return scaled.select(pl.sum_horizontal(terms, ignore_nulls=False)).to_series()


def rank_aggregate(ratings: pl.DataFrame) -> pl.Series:
    """Mean normalised rank (Borda count) over the raters that rated a document, 0 lowest to 1 highest."""
    columns = [pl.col(name).fill_nan(None) for name in ratings.columns]
    ranks = [(c.rank("average") - 1) / pl.max_horizontal(c.count() - 1, 1) for c in columns]
    return ratings.select(pl.mean_horizontal(ranks)).to_series()


class LearntWeights(NamedTuple):
    """Weights of raters that proxy runs speak for, and how well the runs predict each other."""

    weights: dict[str, float]  # they sum to one
    predicted: float  # the metric at the weights
    best_run: float  # lowest metric among the runs
    held_out_spearman: float  # predicted against measured metric over five folds


def learn_weights(
    runs: pl.DataFrame, metric: str, seed: int = 0, candidates: int = 20_000, averaged: int = 100
) -> LearntWeights:
    """Meta-rater: regress a proxy run's metric (lower is better) on its rater weights, and take the predicted minimiser.

    `runs` has a row a proxy run: one column of weights per rater, and `metric`. The regression is ridge on the weights, their
    squares and products: with tens of runs a boosted tree, as published, cannot be fitted. Candidates are drawn uniformly on
    the simplex; the weights are the mean of the `averaged` best. Raises MidtrainError under ten runs.
    """
    raters = [name for name in runs.columns if name != metric]
    if len(runs) < 10:
        raise MidtrainError(f"learning rater weights needs at least ten proxy runs; there are {len(runs)}")
    shares, measured = runs.select(raters).to_numpy().astype(np.float64), runs[metric].to_numpy().astype(np.float64)
    shares = shares / shares.sum(axis=1, keepdims=True)
    folds = np.arange(len(runs)) % 5
    guessed = np.empty(len(runs))
    for fold in range(5):
        out = folds == fold
        guessed[out] = _quadratic(shares[~out], measured[~out], shares[out])
    drawn = np.random.default_rng(seed).dirichlet(np.ones(len(raters)), size=candidates)
    predicted = _quadratic(shares, measured, drawn)
    best = drawn[np.argsort(predicted, kind="stable")[:averaged]].mean(axis=0)
    return LearntWeights(
        weights=dict(zip(raters, map(float, best), strict=True)),
        predicted=float(_quadratic(shares, measured, best[None])[0]),
        best_run=float(measured.min()),
        held_out_spearman=spearman(guessed, measured),
    )


def _quadratic(shares: np.ndarray, measured: np.ndarray, asked: np.ndarray, ridge: float = 1e-3) -> np.ndarray:
    """Ridge regression on a quadratic in the weights: predictions (m,) at `asked` (m, raters)."""
    pairs = np.triu_indices(shares.shape[1])

    def features(x: np.ndarray) -> np.ndarray:
        return np.hstack([x, x[:, pairs[0]] * x[:, pairs[1]]])

    known = features(shares)
    centre, mean = known.mean(axis=0), measured.mean()
    gram = (known - centre).T @ (known - centre) + ridge * np.eye(known.shape[1])
    coefficients = np.linalg.solve(gram, (known - centre).T @ (measured - mean))
    answer: np.ndarray = mean + (features(asked) - centre) @ coefficients
    return answer


class Disagreement(NamedTuple):
    """A report on raters beside each other."""

    correlation: pl.DataFrame  # one, other, documents, spearman
    added: pl.DataFrame  # rater, top (documents in its best tenth), alone (of those, in no other rater's best tenth)
    samples: pl.DataFrame  # one, other, id, one_rank, other_rank (0 to 1), gap; largest first


def agreement(ratings: pl.DataFrame, raters: Sequence[str], samples: int = 5, top: float = 0.1) -> Disagreement:
    """How far raters agree, what each adds to the others, and the documents on which each two differ most.

    `ratings` has `id` and the raters' columns. Ranks are among the documents that both raters rated.
    """
    correlations: list[dict[str, object]] = []
    apart: list[pl.DataFrame] = []
    clean = ratings.select("id", *[pl.col(name).cast(pl.Float64).fill_nan(None) for name in raters])
    for n, one in enumerate(raters):
        for other in raters[n + 1 :]:
            both = clean.select("id", one=pl.col(one), other=pl.col(other)).drop_nulls()
            value = spearman(both["one"].to_numpy(), both["other"].to_numpy())
            correlations.append({"one": one, "other": other, "documents": len(both), "spearman": value})
            ranked = both.select("id", *[(pl.col(c).rank("average") / pl.len()).alias(f"{c}_rank") for c in ("one", "other")])
            gap = (pl.col("one_rank") - pl.col("other_rank")).abs()
            widest = ranked.with_columns(gap=gap).sort("gap", "id", descending=[True, False]).head(samples)
            apart.append(widest.select(pl.lit(one).alias("one"), pl.lit(other).alias("other"), *widest.columns))
    tops = clean.select(
        [(pl.col(name).rank("average", descending=True) <= top * pl.col(name).count()).fill_null(False) for name in raters]
    )
    added = [
        {
            "rater": name,
            "top": int(tops[name].sum()),
            "alone": int((tops[name] & ~tops.select(pl.any_horizontal([pl.lit(False), *others])).to_series()).sum()),
        }
        for name in raters
        for others in [[pl.col(other) for other in raters if other != name]]
    ]
    pairs = pl.Schema({"one": pl.String, "other": pl.String, "documents": pl.Int64, "spearman": pl.Float64})
    return Disagreement(
        pl.DataFrame(correlations, schema=pairs), pl.DataFrame(added), pl.concat(apart) if apart else pl.DataFrame()
    )


def missed(ratings: pl.DataFrame, coordinated: str, raters: Sequence[str], top: float = 0.1) -> pl.DataFrame:
    """Whose word the coordinated best tenth hangs on: rater, best (documents in that tenth), only (of these, in the best tenth of
    this one of the raters and of no other), and spearman of the rater with the coordinated score.

    `ratings` has the columns of the raters and of the coordinated score.
    """
    columns = [coordinated, *raters]
    clean = ratings.select(pl.col(name).cast(pl.Float64).fill_nan(None) for name in columns)
    # All of a coordinated score's highest bucket are its best; a rater that says the same of everybody has no best.
    ranks = {n: pl.col(n).rank("min" if n == coordinated else "average", descending=True) for n in columns}
    tops = clean.select((ranks[n] <= top * pl.col(n).count()).fill_null(False).alias(n) for n in columns)
    best = tops.filter(coordinated)
    voices = best.select(pl.sum_horizontal(pl.col(name).cast(pl.Int64) for name in raters)).to_series()
    rows = []
    for name in raters:
        both = clean.select(coordinated, name).drop_nulls()
        agree = spearman(both[coordinated].to_numpy(), both[name].to_numpy())
        only = int((best[name] & (voices == 1)).sum())
        rows.append({"coordinated": coordinated, "rater": name, "best": len(best), "only": only, "spearman": agree})
    return pl.DataFrame(rows)
