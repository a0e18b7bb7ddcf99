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
    general: Law,
    domain: Law,
    template: Points,
    domain_template: Points,
    reference: float,
    goal: Goal,
    resolution: int = 60,
    together: float = 1.0,
) -> Plan:
    """The cheapest (size × tokens) point of a grid at which the goal holds with its confidence; among equals the one with
    the least domain loss. Where none does, the point that comes nearest and the bound that fails.

    `template` and `domain_template` are points that were measured: they give tokens, sizes, and the state that training
    starts from; shares keep within those of the general law. `reference` is the general loss that a rise counts from.
    `together` is what both shares sum to, less than 1 where the mixture has more than these two. Raises MidtrainError for a
    goal without bounds.
    """
    if goal.maximum_domain_loss is None and goal.maximum_general_rise is None:
        raise MidtrainError("plan: the goal has no bound; set maximum_domain_loss, maximum_general_rise or both")
    at, other = _grid(general, template, domain_template, goal, resolution, together)
    losses = general.predict(at), domain.predict(other)
    probability = _probability(general, domain, at, other, reference, goal, losses)
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
    general: Law, template: Points, domain_template: Points, goal: Goal, resolution: int, together: float
) -> tuple[Points, Points]:
    """The same points for the general and for the domain loss."""
    most = min(goal.maximum_tokens or np.inf, template.tokens.max())
    usable = (template.tokens > 0) & (template.tokens <= most)
    if not usable.any():
        raise MidtrainError(f"plan: at most {most:g} tokens, but the fewest measured are {template.tokens.min():g}")
    cells = [(float(d), float(n)) for d, n in zip(template.tokens[usable], template.size[usable], strict=True)]
    if goal.sizes:
        cells = [(d, n) for d in sorted({d for d, _ in cells}) for n in goal.sizes]
    shares = np.linspace(general.shares[0], min(general.shares[1], together), resolution)
    # One row of the templates for each cell: the nearest size with these tokens.
    cells = sorted({c if np.isfinite(c[1]) else (c[0], -1.0) for c in cells})
    rows = [_nearest(template, d, n) for d, n in cells]
    index = np.repeat(rows, resolution)
    r = np.tile(shares, len(cells))
    size = np.repeat([n if n >= 0 else np.nan for _, n in cells], resolution)

    def points(of: Points, share: np.ndarray) -> Points:
        at = of[index]
        return Points(share, at.tokens, size, at.start, at.lr_area, at.annealing_area)

    return points(template, r), points(domain_template, together - r)


def _nearest(template: Points, tokens: float, size: float) -> int:
    away = np.where(template.tokens == tokens, 0.0, np.inf) + np.abs(np.nan_to_num(template.size, nan=-1.0) - size)
    return int(np.argmin(away))


def _probability(
    general: Law, domain: Law, at: Points, other: Points, reference: float, goal: Goal, losses: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Share of the refits in which all bounds hold; 0 or 1 by the best fit where there are none."""
    most_general = np.inf if goal.maximum_general_rise is None else reference + goal.maximum_general_rise
    most_domain = np.inf if goal.maximum_domain_loss is None else goal.maximum_domain_loss
    first = general.samples(at, noise=False) if general.settings.bootstrap else losses[0][None]
    second = domain.samples(other, noise=False) if domain.settings.bootstrap else losses[1][None]
    return (first <= most_general).mean(axis=0) * (second <= most_domain).mean(axis=0)
