"""Rules that move shares while a proxy trains, as pure functions; and the paired tests that need no model at all."""

from collections.abc import Sequence

import numpy as np
import polars as pl


def doremi_step(
    shares: np.ndarray, losses: np.ndarray, reference: np.ndarray, step_size: float = 1.0, smoothing: float = 1e-3
) -> np.ndarray:
    """One DoReMi update (arXiv 2305.10429): α' = α·exp(η·max(ℓ − ℓ_ref, 0)), normalised, mixed with c of the uniform.

    All arrays (m): shares now, the proxy's per-token loss of each domain, the reference model's. The recommended shares are
    the average of all steps'.
    """
    excess = np.maximum(losses - reference, 0.0)
    raised = np.log(np.maximum(shares, 1e-300)) + step_size * excess
    grown = np.exp(raised - raised.max())
    return (1 - smoothing) * grown / grown.sum() + smoothing / len(shares)


def microanneals(runs: pl.DataFrame, metrics: Sequence[str], noise: dict[str, float] | None = None) -> pl.DataFrame:
    """Effect of each candidate in short anneals that differ in one ingredient (OLMo 2, arXiv 2501.00656).

    `runs` has `run, baseline` (the run it is paired with; null for a baseline) and the metrics. Returns `run, baseline,
    metric, effect, noise, clear`, sorted: effect is run − baseline; clear where it exceeds twice the noise of a difference
    between two runs with noise `noise[metric]` each (null where that is unknown).
    """
    base = runs.select(pl.col("run").alias("baseline"), *(pl.col(m).alias(f"_{m}") for m in metrics))
    pairs = runs.filter(pl.col("baseline").is_not_null()).join(base, on="baseline")
    tables = []
    for metric in metrics:
        spread = (noise or {}).get(metric)
        effect = pairs.select(
            "run",
            "baseline",
            metric=pl.lit(metric),
            effect=pl.col(metric) - pl.col(f"_{metric}"),
            noise=pl.lit(spread, pl.Float64),
        )
        tables.append(effect.with_columns(clear=pl.col("effect").abs() > 2 * np.sqrt(2) * pl.col("noise")))
    return pl.concat(tables).sort("run", "metric")
