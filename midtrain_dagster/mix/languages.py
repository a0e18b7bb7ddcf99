"""Language quotas: divide every component's budget among its languages so that each language keeps within its bounds."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.mixture import LanguageQuota

UNKNOWN = "unknown"


def split_by_language(mixture: pl.DataFrame, available: pl.DataFrame, quotas: Mapping[str, LanguageQuota]) -> pl.DataFrame:
    """Rows of the mixture divided by `language`.

    A linear program over cells (component, language): component totals stay, no cell repeats more than its component may,
    languages keep their bounds, and the sum of absolute departures from each component's natural division is least. The same
    division holds in every stage. Raises MidtrainError with the numbers where no division keeps all bounds.
    """
    if "language" not in available.columns:
        raise MidtrainError("mixture: language quotas need what is available by component and language (a column `language`)")
    totals = mixture.group_by("component").agg(pl.col("tokens").sum().alias("budget"), pl.col("max_repetition").first())
    cells = (
        available.with_columns(pl.col("language").fill_null(UNKNOWN))
        .join(totals, on="component")
        .filter(pl.col("tokens") > 0)
        .sort("component", "language")
    )
    cells = cells.with_columns(wish=pl.col("budget") * pl.col("tokens") / pl.col("tokens").sum().over("component"))
    amounts = _solve(cells, quotas)
    division = cells.select(
        "component",
        "language",
        # A component may have a share and, in a tiny budget, not one whole token.
        fraction=pl.when(pl.col("budget") > 0)
        .then(pl.Series(amounts) / pl.col("budget"))
        .otherwise(pl.col("tokens") / pl.col("tokens").sum().over("component")),
        repetitions=pl.Series(amounts) / pl.col("tokens"),
        cell_tokens="tokens",
    )
    split = mixture.drop("repetitions").join(division, on="component", how="left").sort("stage", "component", "language")
    return split.with_columns(
        share=pl.col("share") * pl.col("fraction").fill_null(1.0),
        tokens=(pl.col("tokens") * pl.col("fraction").fill_null(1.0)).round().cast(pl.Int64),
        available_tokens=pl.col("cell_tokens").fill_null(0),
        repetitions=pl.col("repetitions").fill_null(0.0),
    ).drop("fraction", "cell_tokens")


def _solve(cells: pl.DataFrame, quotas: Mapping[str, LanguageQuota]) -> np.ndarray:
    """Tokens of each cell. Variables: x (cells), then d (cells) with d ≥ |x − wish|."""
    from scipy.optimize import linprog

    n = len(cells)
    wish = cells["wish"].to_numpy()
    most = (cells["tokens"] * cells["max_repetition"]).to_numpy()
    languages, components = cells["language"].to_numpy(), cells["component"].to_numpy()
    total = sum(dict(zip(components, cells["budget"], strict=True)).values())
    identity = np.eye(n)
    upper = [np.hstack([identity, -identity]), np.hstack([-identity, -identity])]
    bounds = [wish, -wish]
    for language, quota in quotas.items():
        row = np.concatenate([(languages == language).astype(float), np.zeros(n)])
        upper += [row[None], -row[None]]
        bounds += [np.array([quota.maximum * total]), np.array([-quota.minimum * total])]
    names = sorted(set(components))
    equal = np.array([np.concatenate([(components == name).astype(float), np.zeros(n)]) for name in names])
    sums = np.array([cells["budget"][int(np.argmax(components == name))] for name in names], float)
    scale = max(total, 1)
    found = linprog(
        np.concatenate([np.zeros(n), np.ones(n)]),
        A_ub=np.vstack(upper),
        b_ub=np.concatenate(bounds) / scale,
        A_eq=equal,
        b_eq=sums / scale,
        bounds=[(0, m / scale) for m in most] + [(0, None)] * n,
        method="highs",
    )
    if not found.success:
        raise MidtrainError(_why(cells, quotas, total))
    return np.maximum(found.x[:n] * scale, 0.0)


def _why(cells: pl.DataFrame, quotas: Mapping[str, LanguageQuota], total: float) -> str:
    parts = []
    for language, quota in quotas.items():
        own = cells.filter(pl.col("language") == language)
        most = float(np.minimum(own["tokens"] * own["max_repetition"], own["budget"]).sum())
        parts.append(
            f"{language}: {quota.minimum * total:,.0f} to {quota.maximum * total:,.0f} wanted, at most {most:,.0f} "
            f"within the components' budgets and repetitions"
        )
    return "mixture: infeasible language quotas: " + "; ".join(parts)
