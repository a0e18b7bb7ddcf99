"""Why the mixture is what it is: the shares, the evidence, and what was predicted beside what came."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from midtrain_dagster.evaluate.report.page import Section, embedded


def section(
    plan: Mapping[str, Any], law: Mapping[str, Any], pictures: Mapping[str, bytes], use_plan: bool, moved: pl.DataFrame
) -> Section:
    """`plan` and `law`: what the assets scaling_plan and scaling_law tell of themselves; `pictures`: title → PNG; `use_plan`:
    whether the recipe mixes a plan that the runs support; `moved`: held_out.contrast, the mid-trained model's outcome."""
    taken = use_plan and plan["supported"]
    return Section(
        "shares",
        "Why these shares, and what was predicted",
        {
            "verdict": verdict(plan, use_plan),
            "plan": plan,
            "components": components(plan, taken),
            "domains": domains(plan),
            "sides": sides(plan, law, moved),
            "pictures": {title: embedded(png) for title, png in pictures.items()},
        },
    )


def verdict(plan: Mapping[str, Any], use_plan: bool) -> str:
    """What the runs support, and what was done about it."""
    if not plan["supported"]:
        return f"The recipe's own mixture stands: {plan['reason']}."
    done = "It was mixed." if use_plan else "It was not mixed, since the recipe says use_plan: false."
    return f"Another mixture is supported: {plan['reason']}. {done}"


def components(plan: Mapping[str, Any], taken: bool) -> list[dict[str, Any]]:
    """A row a component: the recipe's share, the proposed one, the one that was mixed."""
    own, proposed = plan["recipe's shares"], plan["proposed shares"]
    used = plan["shares"] if taken else own
    return [
        {"component": name, "recipe": own.get(name, 0.0), "proposed": proposed[name], "chosen": used.get(name, 0.0)}
        for name in sorted(proposed)
    ]


def domains(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a domain: what the regression expected of the proposal, what its runs measured; and of the recipe's mixture.

    `inside`: whether the measured mean lies in the interval; None where the proposal was not run.
    """
    rows = []
    for domain, (loss, low, high) in plan["expected losses"].items():
        measured = plan.get("measured losses", {}).get(domain)
        rows.append(
            {
                "domain": domain,
                "recipe_expected": plan["recipe's expected losses"][domain],
                "recipe_measured": plan["recipe's measured losses"][domain],
                "expected": loss,
                "low": low,
                "high": high,
                "measured": measured,
                "inside": None if measured is None else low <= measured <= high,
            }
        )
    return rows


def sides(plan: Mapping[str, Any], law: Mapping[str, Any], moved: pl.DataFrame) -> list[dict[str, Any]]:
    """A row a side: what its law predicts for proxies of the chosen mixture, what they measured, the law's error on runs it
    has not seen, and the domains of that side with the change of the mid-trained model's bits per byte."""
    rows = []
    for side, found in plan["laws at the chosen mixture"].items():
        own: Sequence[tuple[str, float]] = moved.filter(role=side).select("domain", "relative_change").rows()
        rows.append(
            {
                "side": side,
                **found,
                "inside": found["low"] <= found["measured"] <= found["high"],
                "form": law[side]["form"],
                "paper": law[side]["paper"],
                "held_out_mae": law["held-out mae, nats"][side],
                "moved": own,
            }
        )
    return rows
