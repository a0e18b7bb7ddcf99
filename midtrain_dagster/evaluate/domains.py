"""Base against mid-trained by domain: each benchmark counts alike, however many questions it has; and whether what was known is still there."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import polars as pl

from midtrain_dagster.evaluate.compare import leaked, paired
from midtrain_dagster.evaluate.verdicts import (
    GOLD_BITS,
    LOWER_IS_BETTER,
    NUMBERS,
    USUAL,
    Judging,
    judge,
    resampled,
    resampled_p,
    schema,
)

OVERALL = "overall"
SCORE = "score"  # the primary metrics of a domain's benchmarks, whatever they are called
DOMAINS_SCHEMA = schema({"domain": pl.String, "metric": pl.String, "benchmarks": pl.UInt32})


def compare_domains(
    base: pl.DataFrame,
    mid: pl.DataFrame,
    contaminated: Iterable[str] | pl.DataFrame = (),
    judging: Judging = USUAL,
) -> pl.DataFrame:
    """A row a domain, and last `overall`, for `score` and for bits per byte of gold answers, as DOMAINS_SCHEMA.

    A domain's value is the mean of its benchmarks' (macro average); the interval a paired bootstrap over the questions of each
    benchmark, the benchmarks being given. Verdicts as in `compare.compare`, corrected over the rows of this table.
    """
    pairs = paired(base, mid)
    pairs = pairs.with_columns(
        leaked=leaked(pairs, contaminated),
        metric=pl.when(pl.col("metric") == GOLD_BITS).then(pl.lit(GOLD_BITS)).otherwise(pl.lit(SCORE)),
    )
    domains = sorted(pairs["domain"].drop_nulls().unique())
    rows = []
    for domain in [*domains, OVERALL] if domains else []:
        for metric in (SCORE, GOLD_BITS):
            some = pairs.filter(pl.col("metric") == metric, (pl.col("domain") == domain) | (domain == OVERALL))
            if some.is_empty():
                continue
            every = _macro(some, judging)
            clean = _macro(some.filter(~pl.col("leaked")), judging)
            rows.append(
                {"domain": domain, "metric": metric, "benchmarks": some["benchmark"].n_unique(), **every}
                | {f"clean_{name}": value for name, value in clean.items()}
                | {"set_aside": int(some["leaked"].sum())}
            )
    return judge(rows, judging, DOMAINS_SCHEMA)


def _macro(pairs: pl.DataFrame, judging: Judging) -> dict[str, float | int | None]:
    """Both sides' macro averages, standard errors of the resamples, the difference with interval and p-value."""
    if pairs.is_empty():
        return {"questions": 0, **dict.fromkeys(NUMBERS)}
    rng = np.random.default_rng(judging.seed)
    point, drawn = [], []
    for _, some in pairs.group_by("benchmark", maintain_order=True):
        before, after, weight = sides = some.select("value", "mid_value", "weight").to_numpy().T
        left, right, total = resampled(rng, sides, judging.resamples)
        point.append((before.sum() / weight.sum(), after.sum() / weight.sum()))
        drawn.append(np.stack([left, right]) / np.maximum(total, 1e-12))
    base, mid = np.mean(point, axis=0)
    left, right = np.mean(drawn, axis=0)
    difference = right - left
    same = bool((pairs["value"] == pairs["mid_value"]).all())
    spread = float(difference.std(ddof=1))
    p_value = 1.0 if same else resampled_p(difference, (mid - base) / spread if spread > 0 else None, pairs.height)
    values = (base, left.std(ddof=1), mid, right.std(ddof=1), mid - base, *judging.interval(difference), p_value)
    return {"questions": pairs.height, **{name: float(value) for name, value in zip(NUMBERS, values, strict=True)}}


RETENTION_SCHEMA = pl.Schema(
    {
        "domain": pl.String,
        "metric": pl.String,
        "base": pl.Float64,
        "mid": pl.Float64,
        "fall": pl.Float64,  # of a score, absolute; of bits per byte the rise, relative to the base
        "worst": pl.Float64,  # the fall at the far end of the interval
        "tolerance": pl.Float64,
        "verdict": pl.String,  # retained, lost, cannot tell
    }
)


def retention(table: pl.DataFrame, general: Collection[str], tolerance: float) -> pl.DataFrame:
    """A row for each measure of the domains in `general` (rows of `compare_domains`), as RETENTION_SCHEMA; none where none was measured."""
    rows = []
    for row in table.filter(pl.col("domain").is_in(sorted(general))).iter_rows(named=True):
        if row["metric"] in LOWER_IS_BETTER:
            fall, worst = row["difference"] / row["base"], row["high"] / row["base"]
        else:
            fall, worst = -row["difference"], -row["low"]
        rows.append(judged(row["domain"], row["metric"], row, fall, worst, tolerance))
    return pl.DataFrame(rows, schema=RETENTION_SCHEMA, orient="row")


def judged(
    domain: str, metric: str, sides: Mapping[str, float], fall: float, worst: float, tolerance: float
) -> tuple[str, str, float, float, float, float, float, str]:
    """A row of RETENTION_SCHEMA.

    *lost*: a fall beyond the tolerance; *retained*: none, and the interval does not reach beyond it; *cannot tell*: none seen, but
    the questions are too few to exclude one.
    """
    verdict = "lost" if fall > tolerance else "retained" if worst <= tolerance else "cannot tell"
    return domain, metric, sides["base"], sides["mid"], fall, worst, tolerance, verdict
