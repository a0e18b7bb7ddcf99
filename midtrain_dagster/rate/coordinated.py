"""A coordinated score as a rater of its own: its scale is fitted once, so that a document's score is its own affair.

Percentiles and means of a growing collection move with every refresh. Fitted anew each time, they would change the fate of
documents that did not change; so the scale is kept until its settings or one of its raters' versions do.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.coordination import BucketMaximum, Coordination, Intersection, WeightedSum
from midtrain_dagster.rate.coordinate import intersection, percentile_buckets

KNOTS = 1_000  # of the curve from a score to its rank
Scale = dict[str, Any]


def fit(
    settings: Coordination,
    ratings: pl.DataFrame,
    characters: pl.Series | None = None,
    weights: Mapping[str, float] | None = None,
) -> Scale:
    """What turns scores into the coordinated one, as JSON values. `ratings` has the raters' columns, `characters` each row's length.

    `weights` are the learnt ones of a weighted sum. Raises MidtrainError for a rater that is not there or has rated nothing.
    """
    check(settings, ratings)
    if isinstance(settings, Intersection):
        return {}
    scores = {name: ratings[name].cast(pl.Float64).fill_nan(None) for name in settings.raters}
    empty = [name for name, given in scores.items() if given.null_count() == len(given)]
    if empty:
        raise MidtrainError(f"coordinated {settings.name}: {', '.join(empty)} has rated no document yet")
    if isinstance(settings, BucketMaximum):
        return {"edges": {name: _edges(given, characters, settings.buckets) for name, given in scores.items()}}
    if isinstance(settings, WeightedSum):
        moments = {name: [float(given.mean()), float(given.std(ddof=0)) or 1.0] for name, given in scores.items()}  # type: ignore[arg-type]
        return {"weights": dict(settings.weights or weights or {}), "moments": moments}
    return {"ranks": {name: _ranks(given) for name, given in scores.items()}}


def check(settings: Coordination, ratings: pl.DataFrame) -> None:
    """Raise MidtrainError unless every rater that is named has a column."""
    missing = [name for name in settings.raters if name not in ratings.columns]
    if missing:
        raise MidtrainError(f"coordinated {settings.name}: there is no rater {', '.join(missing)}; see raters: of the project")


def score(settings: Coordination, scale: Scale, ratings: pl.DataFrame) -> pl.Series:
    """The coordinated score of each row, Float64; null where no rater that counts has rated, or where one whose word is needed."""
    check(settings, ratings)
    given = ratings.select(pl.col(name).cast(pl.Float64).fill_nan(None) for name in settings.raters)
    if isinstance(settings, Intersection):
        found = intersection(given, settings.at_least).cast(pl.Float64)
    elif isinstance(settings, BucketMaximum):
        found = given.select(
            _placed(given[n], lambda x, n=n: _bucket(x, scale["edges"][n])) for n in given.columns
        ).max_horizontal()
    elif isinstance(settings, WeightedSum):
        moments = scale["moments"]
        terms = [(pl.col(n) - moments[n][0]) / moments[n][1] * weight for n, weight in scale["weights"].items()]
        found = given.select(pl.sum_horizontal(terms, ignore_nulls=False)).to_series()
    else:
        found = given.select(
            _placed(given[n], lambda x, n=n: np.interp(x, *scale["ranks"][n])) for n in given.columns
        ).mean_horizontal()
    return found.alias(settings.name)


def _edges(scores: pl.Series, characters: pl.Series | None, buckets: int) -> list[list[float]]:
    """Lowest score of each bucket that holds something, and the numbers of these buckets."""
    placed = pl.DataFrame({"score": scores, "bucket": percentile_buckets(scores, characters, buckets)}).drop_nulls()
    first = placed.group_by("bucket").agg(pl.col("score").min()).sort("bucket")
    return [first["score"].to_list(), first["bucket"].cast(pl.Float64).to_list()]


def _bucket(scores: np.ndarray, edges: list[list[float]]) -> np.ndarray:
    lowest, numbers = map(np.asarray, edges)
    at = np.searchsorted(lowest, scores, side="right") - 1
    return np.where(at < 0, 0.0, numbers[np.maximum(at, 0)])


def _ranks(scores: pl.Series) -> list[list[float]]:
    """The curve from a score to its mean rank, 0 to 1: scores and ranks of at most KNOTS points."""
    known = scores.drop_nulls()
    ranked = pl.DataFrame({"score": known, "rank": (known.rank("average") - 1) / max(len(known) - 1, 1)})
    points = ranked.unique().sort("score")
    chosen = np.unique(np.linspace(0, len(points) - 1, min(KNOTS, len(points))).round().astype(int))
    return [points["score"][chosen.tolist()].to_list(), points["rank"][chosen.tolist()].to_list()]


def _placed(scores: pl.Series, place: Any) -> pl.Series:
    """A function of numbers over a column with nulls."""
    values = scores.to_numpy()
    found = pl.Series(scores.name, place(np.nan_to_num(values)), dtype=pl.Float64)
    return found.set(scores.is_null(), None)
