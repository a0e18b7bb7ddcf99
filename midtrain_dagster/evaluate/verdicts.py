"""How a difference between two models is judged: bootstrap, p-values, correction for many comparisons, verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from midtrain_dagster.recipes.evaluation import Evaluation

GOLD_BITS = "gold_bits_per_byte"
HELD_OUT_BITS = "bits_per_byte"  # of held-out documents
LOWER_IS_BETTER = (GOLD_BITS, HELD_OUT_BITS)
CELLS = 1 << 22  # of draws × rows that are held at a time
NUMBERS = {
    "base": pl.Float64,
    "base_stderr": pl.Float64,
    "mid": pl.Float64,
    "mid_stderr": pl.Float64,
    "difference": pl.Float64,  # mid − base
    "low": pl.Float64,
    "high": pl.Float64,
    "p_value": pl.Float64,
}
SIDES = {
    "questions": pl.UInt32,
    **NUMBERS,
    "p_adjusted": pl.Float64,  # Holm, over all rows of the table
    "verdict": pl.String,  # gained, unchanged, lost, cannot tell
}


@dataclass(frozen=True)
class Judging:
    """What a verdict rests on: the level of intervals and verdicts, bootstrap resamples and their seed, and how near to none a
    difference counts as *unchanged* (absolute for scores, relative to the base for bits)."""

    confidence: float = 0.95
    resamples: int = 10_000
    seed: int = 0
    unchanged_within: float = 0.02

    @classmethod
    def of(cls, settings: Evaluation) -> "Judging":
        """As a recipe has it."""
        return cls(settings.confidence, settings.bootstrap, settings.seed, settings.unchanged_within)

    def interval(self, drawn: np.ndarray) -> tuple[float, float]:
        """Percentile interval of resampled values."""
        low, high = np.quantile(drawn, [(1 - self.confidence) / 2, (1 + self.confidence) / 2])
        return float(low), float(high)


USUAL = Judging()


def schema(keys: Mapping[str, Any]) -> pl.Schema:
    """Of a table that says everything twice: over all questions, and as `clean_…` without the `set_aside` ones."""
    clean = {f"clean_{name}": kind for name, kind in SIDES.items()}
    return pl.Schema({**keys, **SIDES, **clean, "set_aside": pl.UInt32, "gain_disappears": pl.Boolean})


def resampled(rng: np.random.Generator, columns: np.ndarray, resamples: int) -> np.ndarray:
    """Sums of `columns` (k, n) over bootstrap draws of the n rows, (k, resamples); memory is bounded whatever n is."""
    count = columns.shape[1]
    step = max(1, CELLS // count)
    sums = [
        rng.multinomial(count, np.full(count, 1 / count), size=min(step, resamples - begin)) @ columns.T
        for begin in range(0, resamples, step)
    ]
    return np.concatenate(sums).T


def stderr(values: np.ndarray, weight: np.ndarray) -> float | None:
    """Of a ratio of sums (delta method); of a plain mean where weights are 1, as lm-evaluation-harness computes it."""
    count = len(values)
    if count < 2:
        return None
    residual = values - values.sum() / weight.sum() * weight
    return float(np.sqrt((residual**2).sum() / (count - 1) / count) / weight.mean())


def paired_p(before: np.ndarray, after: np.ndarray, weight: np.ndarray, difference: np.ndarray, metric: str) -> float:
    """Two-sided. McNemar's exact test counts only questions on which the two differ; else the share of resamples past zero."""
    if metric not in LOWER_IS_BETTER and set(np.unique(before)) | set(np.unique(after)) <= {0.0, 1.0}:
        from scipy.stats import binomtest

        won, lost = int((after > before).sum()), int((after < before).sum())
        return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    if np.array_equal(before, after):
        return 1.0
    error = stderr(after - before, weight)
    mean = float((after - before).sum() / weight.sum())
    return resampled_p(difference, mean / error if error else None, len(before))


def resampled_p(difference: np.ndarray, statistic: float | None, count: int) -> float:
    """Two-sided p of resampled differences over `count` questions: the share past zero.

    Where none is, resamples cannot say how small p is, and no result would survive a correction for many comparisons;
    Student's t takes over then, for p below what the resamples resolve. But a few questions that happen to move alike prove
    nothing: p is never under 2^(1 − count), the least that an exact test of their signs can give.
    """
    from scipy.stats import t

    beyond = int(min((difference <= 0).sum(), (difference >= 0).sum()))
    p = min(1.0, 2 * (beyond + 1) / (len(difference) + 1))
    if not beyond and statistic is not None and count > 1:
        p = min(p, 2 * float(t.sf(abs(statistic), count - 1)))
    return max(p, 2.0 ** (1 - count))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): reject where the adjusted p is under the level, and the family-wise error holds."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def judge(rows: list[dict[str, Any]], judging: Judging, columns: pl.Schema) -> pl.DataFrame:
    """The table of rows that lack p_adjusted, verdict and gain_disappears, with and without the questions set aside."""
    for prefix in ("", "clean_"):
        decide(rows, prefix, judging)
    for row in rows:
        row["gain_disappears"] = bool(row["set_aside"]) and row["verdict"] == "gained" and row["clean_verdict"] != "gained"
    return pl.DataFrame(rows, schema=columns)


def decide(rows: list[dict[str, Any]], prefix: str, judging: Judging) -> None:
    """Add the adjusted p-values and verdicts to `rows`, over those that have a difference at all."""
    tested = [row for row in rows if row[f"{prefix}p_value"] is not None]
    for row, adjusted in zip(tested, holm([row[f"{prefix}p_value"] for row in tested]), strict=True):
        low, high, base = (row[f"{prefix}{name}"] for name in ("low", "high", "base"))
        lower_is_better = row["metric"] in LOWER_IS_BETTER
        margin = judging.unchanged_within * (base if lower_is_better else 1.0)
        better = (row[f"{prefix}difference"] < 0) == lower_is_better
        row[f"{prefix}p_adjusted"] = adjusted
        if adjusted < 1 - judging.confidence:
            row[f"{prefix}verdict"] = "gained" if better else "lost"
        else:
            row[f"{prefix}verdict"] = "unchanged" if -margin <= low and high <= margin else "cannot tell"
    for row in rows:
        if row[f"{prefix}p_value"] is None:
            row[f"{prefix}p_adjusted"], row[f"{prefix}verdict"] = None, "cannot tell"
