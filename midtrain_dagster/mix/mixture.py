"""The mixture: which share of the token budget each component gets, in each stage, and how often that repeats its documents."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix import shares as rules
from midtrain_dagster.mix.languages import split_by_language
from midtrain_dagster.recipes.mixture import Component, Mixture

SCHEMA = pl.Schema(
    {
        "stage": pl.Int64,  # order of reading, from 0; a linear transition takes several
        "stage_name": pl.String,
        "component": pl.String,
        "general": pl.Boolean,
        "share": pl.Float64,  # of the stage; sums to 1 in each
        "tokens": pl.Int64,  # budgeted in this stage
        "documents": pl.Int64,  # that there are
        "available_tokens": pl.Int64,  # that there are, one pass
        "repetitions": pl.Float64,  # passes over the component in the whole run
        "max_repetition": pl.Float64,
    }
)
TOLERANCE = 1e-9


def mixture(
    available: pl.DataFrame, settings: Mixture, shares: Mapping[str, float] | None = None, bend: bool = False
) -> pl.DataFrame:
    """Divide the budget. Rows of SCHEMA, sorted by stage and component; with quotas also by `language`, and with
    `document_length` where a stage has one.

    `available` has `component, tokens`, optionally `documents`, and `language` (one row a component and language) where the
    settings have language quotas. `shares` replaces the settings' own rule: what `propose` recommended, or a scaling plan;
    with `bend` they give way to caps and minima, as shares by temperature do.
    Raises MidtrainError with the numbers where the budget cannot be met within the caps and minima.
    """
    totals = _totals(available)
    components = _components(totals, settings)
    tokens = np.array([totals.get(c.name, (0, 0))[1] for c in components], float)
    repeat = np.array([c.max_repetition or settings.max_repetition for c in components], float)
    general = np.array([c.general for c in components])
    base = _base_shares(components, tokens, repeat, general, settings, shares, bend)
    stages = _stages(components, base, settings)
    overall = np.sum([fraction * share for _, fraction, share in stages], axis=0)
    budget = settings.budget_tokens or _unrepeated(overall, tokens)
    _check(components, overall, tokens, repeat, general, budget, settings)
    rows = []
    ends = np.rint(np.cumsum([0.0, *(fraction for _, fraction, _ in stages)]) * budget).astype(int)
    for number, (name, _, share) in enumerate(stages):
        amounts = _whole(share * float(ends[number + 1] - ends[number]))
        for i, component in enumerate(components):
            rows.append(
                {
                    "stage": number,
                    "stage_name": name,
                    "component": component.name,
                    "general": component.general,
                    "share": share[i],
                    "tokens": amounts[i],
                    "documents": totals.get(component.name, (0, 0))[0],
                    "available_tokens": int(tokens[i]),
                    "repetitions": overall[i] * budget / tokens[i] if tokens[i] else 0.0,
                    "max_repetition": repeat[i],
                }
            )
    result = pl.DataFrame(rows, schema=SCHEMA).sort("stage", "component")
    capped = {stage.name: stage.document_length for stage in settings.stages if stage.document_length}
    if capped:
        result = result.with_columns(
            document_length=pl.col("stage_name").replace_strict(capped, default=None, return_dtype=pl.Int64)
        )
    return split_by_language(result, available, settings.language_quotas) if settings.language_quotas else result


def _totals(available: pl.DataFrame) -> dict[str, tuple[int, int]]:
    """Component → (documents, tokens)."""
    if "documents" not in available.columns:
        available = available.with_columns(documents=pl.lit(0, pl.Int64))
    summed = available.group_by("component").agg(pl.col("documents").sum(), pl.col("tokens").sum())
    return {name: (documents, tokens) for name, documents, tokens in summed.sort("component").iter_rows()}


def _components(totals: Mapping[str, tuple[int, int]], settings: Mixture) -> list[Component]:
    if not any(tokens for _, tokens in totals.values()):
        raise MidtrainError("mixture: there are no tokens to mix; no document belongs to a component")
    if settings.components:
        return list(settings.components)
    return [Component(name=name) for name, (_, tokens) in totals.items() if tokens]


def _base_shares(
    components: list[Component],
    tokens: np.ndarray,
    repeat: np.ndarray,
    general: np.ndarray,
    settings: Mixture,
    given: Mapping[str, float] | None,
    bend: bool,
) -> np.ndarray:
    """Shares before stages. Fixed and given ones stand as they are; the others bend to caps and the general minimum."""
    if given is not None and not bend:
        return _given_shares(components, given)
    if given is None and settings.method == "fixed" and any(c.share is not None for c in components):
        return _fixed_shares(components, tokens)
    budget = settings.budget_tokens
    caps = tokens * repeat / budget if budget else np.full(len(tokens), np.inf)
    if given is not None:
        weights = _given_shares(components, given)
    elif settings.method == "temperature":
        weights = rules.temperature(tokens, settings.temperature)
    elif settings.method == "unimax":
        weights = rules.equal(tokens)
    else:
        weights = rules.natural(tokens)
    try:
        return rules.with_minimum(weights, caps, general, settings.minimum_general_share)
    except ValueError:
        raise MidtrainError(_shortage(components, tokens, repeat, general, budget or int(tokens.sum()), settings)) from None


def _given_shares(components: list[Component], given: Mapping[str, float]) -> np.ndarray:
    unknown = sorted(set(given) - {c.name for c in components})
    if unknown:
        raise MidtrainError(f"mixture: shares name components that do not exist: {', '.join(unknown)}")
    found = np.array([given.get(c.name, 0.0) for c in components], float)
    if found.min() < 0 or abs(found.sum() - 1) > 1e-4:
        raise MidtrainError(f"mixture: the shares given must be at least 0 and sum to 1, not {found.sum():g}")
    return found / found.sum()


def _fixed_shares(components: list[Component], tokens: np.ndarray) -> np.ndarray:
    found = np.array([np.nan if c.share is None else c.share for c in components])
    open_ = np.isnan(found)
    rest = 1 - np.nansum(found)
    if open_.any():
        if rest > TOLERANCE and not tokens[open_].sum():
            raise MidtrainError(f"mixture: {rest:.4g} of the budget is left for components that have no tokens")
        found[open_] = rest * tokens[open_] / max(tokens[open_].sum(), 1)
    return found / found.sum()


def _stages(components: list[Component], base: np.ndarray, settings: Mixture) -> list[tuple[str, float, np.ndarray]]:
    """(name, fraction of the budget, shares) in order; a linear transition is several with the shares of their middles."""
    if not settings.stages:
        return [("all", 1.0, base)]
    result: list[tuple[str, float, np.ndarray]] = []
    before = base
    for stage in settings.stages:
        target = _given_shares(components, stage.shares) if stage.shares else base
        if stage.transition == "linear":
            steps = settings.transition_steps
            for k in range(steps):
                way = (k + 0.5) / steps
                result.append((stage.name, stage.fraction / steps, (1 - way) * before + way * target))
        else:
            result.append((stage.name, stage.fraction, target))
        before = target
    return result


def _unrepeated(overall: np.ndarray, tokens: np.ndarray) -> int:
    used = overall > TOLERANCE
    if (tokens[used] == 0).any():
        return int(tokens.sum())  # the check names the empty component
    return max(1, int(np.floor((tokens[used] / overall[used]).min() + 1e-6)))


def _whole(amounts: np.ndarray) -> list[int]:
    """Round to whole tokens so that the sum is that of the amounts: largest remainders first."""
    floor = np.floor(amounts + 1e-9).astype(int)
    missing = round(amounts.sum()) - int(floor.sum())
    for i in np.argsort(floor - amounts, kind="stable")[: max(missing, 0)]:
        floor[i] += 1
    return [int(v) for v in floor]


def _check(
    components: list[Component],
    overall: np.ndarray,
    tokens: np.ndarray,
    repeat: np.ndarray,
    general: np.ndarray,
    budget: int,
    settings: Mixture,
) -> None:
    wanted, most = overall * budget, tokens * repeat
    problems = []
    for i, c in enumerate(components):
        if wanted[i] > most[i] * (1 + 1e-6) + 1:
            remedy = (
                f"lower its share to {most[i] / budget:.4f}, the budget to {int(most[i] / overall[i]):,}, "
                f"or allow {wanted[i] / tokens[i]:.1f} repetitions"
                if tokens[i]
                else "no document belongs to it"
            )
            problems.append(
                f"{c.name}: share {overall[i]:.4f} of {budget:,} tokens is {wanted[i]:,.0f}, "
                f"but {tokens[i]:,.0f} available × {repeat[i]:g} repetitions are {most[i]:,.0f} ({remedy})"
            )
    share = overall[general].sum()
    if share < settings.minimum_general_share - 1e-9:
        names = ", ".join(c.name for c in components if c.general) or "none is marked general"
        problems.append(f"general components ({names}) have {share:.4f}, below the minimum {settings.minimum_general_share:g}")
    if problems:
        raise MidtrainError("mixture: infeasible: " + "; ".join(problems))


def _shortage(
    components: list[Component], tokens: np.ndarray, repeat: np.ndarray, general: np.ndarray, budget: int, settings: Mixture
) -> str:
    parts = ", ".join(f"{c.name} {t:,.0f} × {r:g}" for c, t, r in zip(components, tokens, repeat, strict=True))
    total, kept = (tokens * repeat).sum(), (tokens * repeat)[general].sum()
    minimum = settings.minimum_general_share
    return (
        f"mixture: infeasible: {budget:,} tokens wanted, of them at least {minimum * budget:,.0f} general; "
        f"available with repetitions {total:,.0f}, of them general {kept:,.0f} ({parts}); "
        "lower the budget or the minimum, allow more repetitions, or add documents"
    )
