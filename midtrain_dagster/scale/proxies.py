"""Laws of proxy runs: one of the general loss in the general share, one of the target loss in the target share.

The table of runs has `run, role, seed, tokens, size, lr_area, annealing_area` and, for each side (`general`, `target`),
`<side>_share, <side>_loss, <side>_start`: its share of the tokens trained on, its loss after and before, in nats per token.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.scaling import Goal, LawFit
from midtrain_dagster.scale.critical import CriticalShare, critical_share
from midtrain_dagster.scale.fit import Law
from midtrain_dagster.scale.measurements import Points, points
from midtrain_dagster.scale.plan import Plan, plan
from midtrain_dagster.scale.validate import choose, constraints

SIDES = ("general", "target")
OF_THE_FIT = ("fit", "repeat", "ladder")


def measured(runs: pl.DataFrame, side: str) -> tuple[Points, np.ndarray]:
    """Points and losses of a side."""
    columns = {"share": f"{side}_share", "start": f"{side}_start"}
    columns |= {name: name for name in ("tokens", "size", "lr_area", "annealing_area")}
    return points(runs, columns), runs[f"{side}_loss"].cast(pl.Float64).to_numpy()


def of_the_fit(runs: pl.DataFrame) -> pl.DataFrame:
    """The runs that laws are fitted to; the held-out ones only judge them."""
    return runs.filter(pl.col("role").is_in(OF_THE_FIT))


def fit_laws(runs: pl.DataFrame, settings: LawFit) -> tuple[dict[str, Law], pl.DataFrame]:
    """A law for each side, and the errors on left-out shares and sizes of every form tried, with a column `side`."""
    laws, errors = {}, []
    for side in SIDES:
        at, losses = measured(of_the_fit(runs), side)
        laws[side], left_out = choose(at, losses, settings)
        errors.append(left_out.with_columns(side=pl.lit(side)))
    return laws, pl.concat(errors)


def predictions(runs: pl.DataFrame, laws: dict[str, Law]) -> pl.DataFrame:
    """`run, role, side, measured, predicted, low, high, error` for every run, held-out ones included; errors in nats.

    Runs where a law says nothing (a size it has not seen, for a form without a size term) are left out.
    """
    tables = []
    for side, law in laws.items():
        at, losses = measured(runs, side)
        known = [i for i in range(len(at)) if _known(law, at[np.array([i])])]
        rows = np.array(known, dtype=int)
        predicted = law.predict(at[rows])
        low, high = law.interval(at[rows])
        found = {"measured": losses[rows], "predicted": predicted, "low": low, "high": high, "error": predicted - losses[rows]}
        tables.append(runs[rows].select("run", "role").with_columns(pl.lit(side).alias("side"), **_series(found)))
    return pl.concat(tables)


def _known(law: Law, at: Points) -> bool:
    try:
        law.predict(at)
    except MidtrainError:
        return False
    return True


def _series(columns: dict[str, np.ndarray]) -> dict[str, pl.Series]:
    return {name: pl.Series(values, dtype=pl.Float64) for name, values in columns.items()}


def held_out_error(found: pl.DataFrame) -> dict[str, float | None]:
    """Mean absolute error on the held-out runs by side, nats; None where there are none."""
    held = found.filter(pl.col("role") == "held_out")
    return {
        side: held.filter(pl.col("side") == side)["error"].abs().mean()  # type: ignore[misc]
        for side in SIDES
    }


def about(law: Law, runs: pl.DataFrame, side: str, left_out: pl.DataFrame) -> dict[str, Any]:
    """What a reader wants to know of a law."""
    at, _ = measured(of_the_fit(runs), side)
    own = left_out.filter((pl.col("form") == law.form.name) & (pl.col("side") == side))
    return {
        "form": law.form.name,
        "paper": law.form.paper,
        "points": law.points,
        "mae": law.mae,
        "left out mae": {by: own.filter(pl.col("by") == by)["mae"].mean() for by in own["by"].unique().sort()},
        "parameters": law.parameters(),
        "constraints": constraints(law, at),
    }


def at_full_size(runs: pl.DataFrame, side: str) -> Points:
    """A point of the runs that mixtures are compared at: most tokens, first shape."""
    at, _ = measured(runs.filter(pl.col("role") == "repeat"), side)
    return at[np.array([0])]


def critical(runs: pl.DataFrame, laws: dict[str, Law], tolerance: float) -> CriticalShare:
    """The least general share at which general loss is no more than `tolerance` (relative) above that of the recipe's mixture.

    Proxies begin with random weights, so it is the recipe's own mixture, not the start, that a rise counts from.
    """
    template = at_full_size(runs, "general")

    def at(shares: np.ndarray) -> Points:
        many = template[np.zeros(len(shares), int)]
        return Points(shares, many.tokens, many.size, many.start, many.lr_area, many.annealing_area)

    return critical_share(laws["general"], at, baseline_loss(runs, "general") * (1 + tolerance))


def baseline_loss(runs: pl.DataFrame, side: str) -> float:
    """Mean loss of a side over the runs of the recipe's own mixture, nats."""
    return float(runs.filter(pl.col("role") == "repeat")[f"{side}_loss"].mean())  # type: ignore[arg-type]


def goal_plan(runs: pl.DataFrame, laws: dict[str, Law], goal: Goal) -> Plan | None:
    """The plan for a goal, for models of the proxies' kind; None for a goal without bounds.

    General and target share together stay what they are in the recipe's mixture. A rise counts from that mixture's loss.
    """
    if goal.maximum_domain_loss is None and goal.maximum_general_rise is None:
        return None
    base = runs.filter(pl.col("role") == "repeat")
    together = float(base["general_share"][0] + base["target_share"][0])
    general, _ = measured(of_the_fit(runs), "general")
    target, _ = measured(of_the_fit(runs), "target")
    return plan(laws["general"], laws["target"], general, target, baseline_loss(runs, "general"), goal, together=together)


def best_shares(
    runs: pl.DataFrame, laws: dict[str, Law], method: str, tolerance: float, target_weight: float
) -> dict[str, Any]:
    """General and target share that the laws recommend, together what they are in the recipe's mixture.

    Of the shares at which general loss keeps within `tolerance` (relative) of the recipe's mixture, `d_cpt` takes the one with
    the least weighted mean of both losses (arXiv 2406.01375, use 1), `cmr` the largest target share (arXiv 2407.17467). Where
    none keeps it, the recipe's own. Keys `general_share, target_share`, and for each side `<side>`: loss, lower, upper bound.
    """
    base = runs.filter(pl.col("role") == "repeat")
    own = float(base["general_share"][0]), float(base["target_share"][0])
    together = sum(own)
    low = max(laws["general"].shares[0], together - laws["target"].shares[1])
    high = min(laws["general"].shares[1], together - laws["target"].shares[0])
    shares = np.append(np.linspace(low, high, 201) if low < high else np.empty(0), own[0])

    def at(side: str) -> Points:
        many = at_full_size(runs, side)[np.zeros(len(shares), int)]
        share = shares if side == "general" else together - shares
        return Points(share, many.tokens, many.size, many.start, many.lr_area, many.annealing_area)

    general, target = (laws[side].predict(at(side)) for side in SIDES)
    keeps = general <= general[-1] * (1 + tolerance)
    merit = shares if method == "cmr" else target_weight * target + (1 - target_weight) * general
    best = int(np.argmin(np.where(keeps, merit, np.inf)))
    found: dict[str, Any] = {"general_share": float(shares[best]), "target_share": float(together - shares[best])}
    for side, losses in (("general", general), ("target", target)):
        bounds = laws[side].interval(at(side)[np.array([best])])
        found[side] = (float(losses[best]), float(bounds[0][0]), float(bounds[1][0]))
    return found


def at_mixture(
    runs: pl.DataFrame, laws: dict[str, Law], general_share: float, target_share: float, measured_runs: pl.DataFrame
) -> dict[str, dict[str, float]]:
    """What the laws say of a mixture, for proxies of the first shape at the most tokens, beside what `measured_runs` (runs of
    that mixture) measured: side → share, predicted, low, high (of one run), measured (their mean), all losses in nats."""
    found = {}
    for side, share in (("general", general_share), ("target", target_share)):
        at = replace(at_full_size(runs, side), share=np.array([share]))
        low, high = laws[side].interval(at)
        found[side] = {
            "share": share,
            "predicted": float(laws[side].predict(at)[0]),
            "low": float(low[0]),
            "high": float(high[0]),
            "measured": float(measured_runs[f"{side}_loss"].mean()),  # type: ignore[arg-type]
        }
    return found
