"""The critical share: how much of the special domain training may have before general loss rises."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from midtrain_dagster.scale.fit import Law
from midtrain_dagster.scale.measurements import Points


@dataclass(frozen=True)
class CriticalShare:
    """Smallest general share (so the largest domain share) at which general loss does not exceed its start by more than
    the tolerance (CMR, arXiv 2407.17467)."""

    general_share: float  # NaN where no share in the range fitted keeps the bound
    domain_share: float
    low: float  # interval of general_share by bootstrap
    high: float
    at_boundary: bool  # every share in the range fitted keeps the bound: the true value lies beyond
    bound: float  # nats


def critical_share(law: Law, at: Callable[[np.ndarray], Points], bound: float, resolution: int = 2001) -> CriticalShare:
    """`law` is of the general loss; `at` makes points from general shares; `bound` is the start loss plus the tolerance."""
    shares = np.linspace(*law.shares, resolution)
    points = at(shares)
    best = _first(shares, law.predict(points), bound)
    drawn = np.array([_first(shares, row, bound) for row in law.samples(points, noise=False)])
    drawn = drawn[np.isfinite(drawn)]
    tail = (1 - law.settings.interval) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]) if len(drawn) else (np.nan, np.nan)
    return CriticalShare(best, 1 - best, float(low), float(high), bool(best == shares[0]), bound)


def _first(shares: np.ndarray, losses: np.ndarray, bound: float) -> float:
    """The share from which on the loss stays below the bound, interpolated."""
    above = np.flatnonzero(losses > bound)
    if not len(above):
        return float(shares[0])
    i = int(above[-1])
    if i == len(shares) - 1:
        return float("nan")
    way = (losses[i] - bound) / (losses[i] - losses[i + 1])
    return float(shares[i] + way * (shares[i + 1] - shares[i]))
