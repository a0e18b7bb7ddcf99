"""DoReMi's rule, which moves shares while a proxy trains, and microanneals, which compare runs in pairs; as pure functions."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl


def doremi_step(shares: np.ndarray, excess: np.ndarray, step_size: float = 1.0, smoothing: float = 1e-3) -> np.ndarray:
    """One DoReMi update (arXiv 2305.10429): α' = α·exp(η·λ), normalised, mixed with c of the uniform.

    Both arrays (m): weights now; λ, the mean over each domain's tokens of max(ℓ − ℓ_ref, 0). The recommended shares are the
    average of all steps' weights.
    """
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


def anneal_shares(base: Mapping[str, float], ingredient: str, share: float, cap: float = 1.0) -> dict[str, float]:
    """The mixture of an anneal: `ingredient` takes `share` of the tokens from all of `base`, but not beyond its cap."""
    own = base.get(ingredient, 0.0)
    part = min(share, max(cap - own, 0.0) / max(1 - own, 1e-12))
    return {name: (1 - part) * s + (part if name == ingredient else 0.0) for name, s in base.items()}


def combine(base: Mapping[str, float], effects: Mapping[str, float], share: float) -> dict[str, float]:
    """The mixture that anneals recommend: the ingredients with an effect below zero (loss falls) take `share` of the tokens
    together, each by the size of its effect; the base mixture where none has."""
    gains = {name: -effect for name, effect in effects.items() if effect < 0}
    total = sum(gains.values())
    if not total:
        return dict(base)
    return {name: (1 - share) * s + share * (gains.get(name, 0.0) / total) for name, s in base.items()}
