"""The scaling plan: which share, how many tokens and which size reach a goal, what to expect, and how sure that is."""

from dataclasses import dataclass

import numpy as np

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.scaling import Goal
from midtrain_dagster.scale.fit import Law
from midtrain_dagster.scale.measurements import Points


@dataclass(frozen=True)
class Plan:
    """A recommendation, or the reason why there is none."""

    feasible: bool
    reason: str
    general_share: float
    tokens: float
    size: float | None
    domain_loss: tuple[float, float, float]  # expected, lower, upper bound
    general_loss: tuple[float, float, float]
    probability: float  # that all bounds hold, by bootstrap


def plan(
    general: Law, domain: Law, template: Points, start: float, domain_start: float, goal: Goal, resolution: int = 60
) -> Plan:
    """The cheapest (size × tokens) point of a grid at which the goal holds with its confidence; among equals the one with
    the least domain loss. Where none does, the point that comes nearest and the bound that fails.

    `template` are points that were measured: they give the range of tokens and the sizes; shares keep within those of the
    general law. `start` and `domain_start` are the losses before training. Raises MidtrainError for a goal without bounds.
    """
    if goal.maximum_domain_loss is None and goal.maximum_general_rise is None:
        raise MidtrainError("plan: the goal has no bound; set maximum_domain_loss, maximum_general_rise or both")
    at, other = _grid(general, template, goal, start, domain_start, resolution)
    losses = general.predict(at), domain.predict(other)
    probability = _probability(general, domain, at, other, start, goal, losses)
    holds = probability >= goal.confidence
    cost = at.tokens * np.nan_to_num(at.size, nan=1.0)
    best = int(np.lexsort((losses[1], cost, ~holds))[0]) if holds.any() else int(np.lexsort((losses[1], -probability))[0])
    one = np.array([best])
    bounds = general.interval(at[one]), domain.interval(other[one])
    verdict = f"all bounds hold with probability {probability[best]:.2f}"
    return Plan(
        bool(holds.any()),
        verdict if holds.any() else f"no share, tokens and size tried reach confidence {goal.confidence:g}; nearest: {verdict}",
        float(at.share[best]),
        float(at.tokens[best]),
        float(at.size[best]) if np.isfinite(at.size[best]) else None,
        (float(losses[1][best]), float(bounds[1][0][0]), float(bounds[1][1][0])),
        (float(losses[0][best]), float(bounds[0][0][0]), float(bounds[0][1][0])),
        float(probability[best]),
    )


def _grid(
    general: Law, template: Points, goal: Goal, start: float, domain_start: float, resolution: int
) -> tuple[Points, Points]:
    """The same points for the general and for the domain loss."""
    most = min(goal.maximum_tokens or np.inf, template.tokens.max())
    tokens = np.unique(template.tokens[(template.tokens > 0) & (template.tokens <= most)])
    if not len(tokens):
        raise MidtrainError(f"plan: at most {most:g} tokens, but the fewest measured are {template.tokens.min():g}")
    sizes = np.array(goal.sizes or np.unique(template.size), float)
    shares = np.linspace(*general.shares, resolution)
    r, d, n = (a.ravel() for a in np.meshgrid(shares, tokens, sizes, indexing="ij"))
    blank = np.full(len(r), np.nan)
    return (
        Points(r, d, n, np.full(len(r), start), blank, blank),
        Points(1 - r, d, n, np.full(len(r), domain_start), blank, blank),
    )


def _probability(
    general: Law, domain: Law, at: Points, other: Points, start: float, goal: Goal, losses: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Share of the refits in which all bounds hold; 0 or 1 by the best fit where there are none."""
    most_general = np.inf if goal.maximum_general_rise is None else start + goal.maximum_general_rise
    most_domain = np.inf if goal.maximum_domain_loss is None else goal.maximum_domain_loss
    first = general.samples(at, noise=False) if general.settings.bootstrap else losses[0][None]
    second = domain.samples(other, noise=False) if domain.settings.bootstrap else losses[1][None]
    return (first <= most_general).mean(axis=0) * (second <= most_domain).mean(axis=0)
