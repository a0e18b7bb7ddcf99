"""The ways of finding shares, one table: what each is, which regression predicts losses for it, and the bounds all keep."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from midtrain_dagster.mix import shares as rules
from midtrain_dagster.mix.mixture import mixture
from midtrain_dagster.recipes.mixture import Mixture

Kind = Literal["rule", "regression", "law", "paired", "online"]


@dataclass(frozen=True)
class Method:
    """A way of finding shares. `rule`: from counts of tokens. `regression`: of losses on shares. `law`: of losses in the
    general and the target share. `paired`, `online`: from proxy runs of its own."""

    kind: Kind
    paper: str
    model: str = "log_linear"
    """Regression that predicts the losses of what the method proposes; its own, where it is one."""
    regularised: bool = False
    """Whether the proposal pays for its distance from the recipe's mixture."""


METHODS: dict[str, Method] = {
    "natural": Method("rule", "shares by tokens"),
    "temperature": Method("rule", "arXiv 1907.05019"),
    "unimax": Method("rule", "arXiv 2304.09151"),
    "microanneal": Method("paired", "arXiv 2501.00656"),
    "regmix": Method("regression", "arXiv 2407.01492", "lightgbm"),
    "regmix_linear": Method("regression", "arXiv 2407.01492", "linear"),
    "mixing_law": Method("regression", "arXiv 2403.16952", "exponential"),
    "bimix": Method("regression", "arXiv 2405.14908", "bimix"),
    "doremi": Method("online", "arXiv 2305.10429"),
    "olmix": Method("regression", "arXiv 2602.12237", "log_linear", regularised=True),
    "d_cpt": Method("law", "arXiv 2406.01375"),
    "cmr": Method("law", "arXiv 2407.17467"),
    "quadratic_sqrt": Method("regression", "ours", "quadratic_sqrt", regularised=True),
    "stack": Method("regression", "ours", "stack", regularised=True),
}


def by_rule(name: str, there: pl.DataFrame, settings: Mixture) -> dict[str, float]:
    """Shares of `natural`, `temperature` or `unimax` for the recipe's components, within its caps and its general minimum."""
    components = [c.model_copy(update={"share": None}) for c in settings.components]
    plain = settings.model_copy(update={"method": name, "components": components, "language_quotas": {}, "stages": []})
    table = mixture(there, plain)
    return dict(table.select("component", "share").iter_rows())


def within(
    shares: Mapping[str, float], caps: Mapping[str, float], settings: Mixture, fallback: Mapping[str, float]
) -> dict[str, float]:
    """Shares bent to the caps and to the recipe's general minimum; `fallback` where that cannot be."""
    names = sorted(shares)
    member = np.array([n in general_components(settings) for n in names])
    most = np.array([caps.get(n, 1.0) for n in names])
    try:
        bent = rules.with_minimum(np.array([shares[n] for n in names]), most, member, settings.minimum_general_share)
    except ValueError:
        return dict(fallback)
    return dict(zip(names, bent.tolist(), strict=True))


def general_components(settings: Mixture) -> list[str]:
    """Names of the components that the recipe calls general."""
    return [c.name for c in settings.components if c.general]


def by_side(
    baseline: Mapping[str, float], target_share: float, general_share: float, fractions: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """The baseline with its target and its general components scaled to these shares; components of neither stay.

    `fractions`: side → component → which part of it is of the side's domains; a component goes with the side it is most of.
    """
    side = {n: max(("general", "target"), key=lambda s: fractions[s].get(n, 0.0)) for n in baseline}
    of = {n: side[n] if fractions[side[n]].get(n, 0.0) > 0.5 else "neither" for n in baseline}
    wanted = {"general": general_share, "target": target_share}
    now = {s: sum(share for n, share in baseline.items() if of[n] == s) for s in wanted}
    scale = {s: wanted[s] / now[s] if now[s] else 0.0 for s in wanted}
    found = {n: share * scale.get(of[n], 1.0) for n, share in baseline.items()}
    total = sum(found.values())
    return {n: share / total for n, share in found.items()}
