"""LSH bands: how many, and how wide, for a target Jaccard similarity."""

from functools import cache
from typing import NamedTuple

import numpy as np

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.deduplication import Deduplication


class Bands(NamedTuple):
    """`bands` x `rows` hashes; a pair of similarity s becomes a candidate with probability 1 - (1 - s^rows)^bands."""

    bands: int
    rows: int
    false_negative: float  # mean probability that a pair at or above the target is missed
    false_positive: float  # mean probability that a pair below the target becomes a candidate (before confirmation)

    def probability(self, similarity: float) -> float:
        """That a pair of this Jaccard similarity becomes a candidate."""
        return 1 - (1 - similarity**self.rows) ** self.bands


@cache
def bands_for(jaccard: float, permutations: int, false_negative: float = 0.0005) -> Bands:
    """The widest bands whose mean false-negative rate above `jaccard` is at most `false_negative`, of `permutations` hashes.

    Wide bands make few false candidates; candidates are confirmed anyway, a missed pair is lost for good.
    So recall is the constraint.
    Raises ValueError where even one row a band misses more.
    """
    for rows in range(permutations, 0, -1):
        found = error(permutations // rows, rows, jaccard)
        if found.false_negative <= false_negative:
            return found
    raise ValueError(f"{permutations} permutations cannot reach a false-negative rate of {false_negative} at Jaccard {jaccard}")


def error(bands: int, rows: int, jaccard: float) -> Bands:
    """A banding's mean error rates over uniform similarities (Leskovec et al., Mining of Massive Datasets, section 3.4)."""
    above, below = np.linspace(jaccard, 1, 2001), np.linspace(0, jaccard, 2001)
    missed = float(np.mean((1 - above**rows) ** bands))
    found = float(np.mean(1 - (1 - below**rows) ** bands))
    return Bands(bands, rows, missed, found)


def banding(settings: Deduplication) -> Bands:
    """The bands of the settings, chosen where they name none.

    Raises MidtrainError when they need more hashes than there are permutations, or name only one of bands and rows.
    """
    if settings.bands is None and settings.rows is None:
        return bands_for(settings.jaccard, settings.permutations)
    if settings.bands is None or settings.rows is None:
        raise MidtrainError("deduplication: give both bands and rows, or neither")
    if settings.bands * settings.rows > settings.permutations:
        raise MidtrainError(
            f"deduplication: {settings.bands} bands of {settings.rows} rows need more than {settings.permutations} permutations"
        )
    return error(settings.bands, settings.rows, settings.jaccard)
