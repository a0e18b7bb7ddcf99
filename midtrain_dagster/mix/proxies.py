"""Proxy runs: which small mixtures to train, and the sequences each of them trains on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from midtrain_dagster.documents import text_hash
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix.choose import order_keys
from midtrain_dagster.mix.components import available
from midtrain_dagster.mix.dirichlet import design
from midtrain_dagster.mix.mixture import mixture
from midtrain_dagster.mix.pack import pack
from midtrain_dagster.mix.propose import Regression, normalised
from midtrain_dagster.mix.tokens import TokenStore
from midtrain_dagster.recipes.mixture import Component, Mixture, Packing
from midtrain_dagster.recipes.scaling import Scaling
from midtrain_dagster.sequences import Sequences


def sample(documents: pl.DataFrame, most: int, seed: int) -> pl.DataFrame:
    """At most so many documents of each component, the same ones whatever order they come in; those of no component go.

    Sorted by id, with a column `characters_of_component`: how many characters the component has in all of `documents`.
    """
    inside = documents.filter(pl.col("component").is_not_null() & (pl.col("repetitions") > 0)).sort("id")
    keyed = inside.with_columns(
        _key=pl.Series(order_keys(inside["id"].to_list(), seed), dtype=pl.UInt64),
        characters_of_component=pl.col("text").str.len_chars().cast(pl.Int64).sum().over("component"),
    )
    return keyed.filter(pl.col("_key").rank("ordinal").over("component") <= most).drop("_key")


def supply(sampled: pl.DataFrame) -> pl.DataFrame:
    """What there is of each component, `component, documents, tokens, sampled_tokens`, estimated from a sample with `tokens`
    and `text`: tokens a character of the sample, times all characters. Exact where the sample is everything."""
    counted = available(sampled).rename({"tokens": "sampled_tokens"})
    sizes = sampled.group_by("component").agg(
        ratio=pl.col("characters_of_component").first() / pl.col("text").str.len_chars().sum().clip(lower_bound=1)
    )
    joined = counted.join(sizes, on="component").sort("component")
    return joined.with_columns(tokens=(pl.col("sampled_tokens") * pl.col("ratio")).round().cast(pl.Int64)).drop("ratio")


def recipe_shares(there: pl.DataFrame, settings: Mixture) -> dict[str, float]:
    """Shares of the recipe's own mixture over its whole budget: the mixture that a proposal must beat.

    The budget is met by another tokenizer here, so caps on repetition bind a little later than in the run itself.
    """
    plain = settings.model_copy(update={"language_quotas": {}})
    table = mixture(there, plain)
    summed = table.group_by("component").agg(pl.col("tokens").sum()).sort("component")
    return {name: tokens / summed["tokens"].sum() for name, tokens in summed.iter_rows()}


def domain_fractions(sampled: pl.DataFrame, domains: Sequence[str]) -> dict[str, float]:
    """Component → which fraction of its tokens is of these domains."""
    table = sampled.group_by("component").agg(
        inside=pl.col("tokens").filter(pl.col("domain").is_in(list(domains))).sum() / pl.col("tokens").sum()
    )
    return dict(table.sort("component").iter_rows())


def caps(there: pl.DataFrame, tokens: int, max_repetition: float) -> dict[str, float]:
    """Component → largest share that a run of so many tokens can have without repeating documents more often."""
    return {
        name: min(1.0, max_repetition * has / tokens) for name, has in there.select("component", "sampled_tokens").iter_rows()
    }


def runs(there: pl.DataFrame, baseline: Mapping[str, float], settings: Scaling) -> pl.DataFrame:
    """The design: `run, role, seed, tokens, shape` and one share column a component.

    Roles: `fit` and `held_out` mixtures around the baseline and `repeat` runs of the baseline itself, all at the most tokens
    and the first shape; `ladder` runs, the first mixtures again at the other numbers of tokens and shapes. Raises
    MidtrainError where the documents cannot fill even the baseline.
    """
    proxy = settings.proxy
    most = max(proxy.tokens)
    names = {name: share for name, share in baseline.items() if share > 0}
    limits = caps(there, most, proxy.max_repetition)
    short = [f"{n}: {names[n]:.1%} wanted, at most {limits[n]:.1%}" for n in names if limits[n] < names[n] - 1e-9]
    if short:
        raise MidtrainError(
            f"scaling: a proxy run of {most:,} tokens cannot hold the recipe's own mixture with at most "
            f"{proxy.max_repetition:g} repetitions ({'; '.join(short)}); lower scaling.proxy.tokens or add documents"
        )
    table = design(
        names, settings.proxy_mixtures, settings.held_out, settings.repeats, settings.concentration, limits, settings.seed
    )
    table = table.with_columns(tokens=pl.lit(most), shape=pl.lit(0))
    others = [(t, 0) for t in sorted(set(proxy.tokens) - {most})] + [(most, s) for s in range(1, len(proxy.shapes))]
    first = table.filter(pl.col("role") == "fit").head(proxy.ladder)
    steps = [
        first.with_columns(
            pl.lit("ladder").alias("role"),
            pl.concat_str(pl.lit(f"ladder-{t}-{s}-"), pl.col("run").str.strip_prefix("fit-")).alias("run"),
            pl.lit(t).alias("tokens"),
            pl.lit(s).alias("shape"),
        )
        for t, s in others
    ]
    return pl.concat([table, *steps]).select("run", "role", "seed", "tokens", "shape", *names)


def pack_run(
    sampled: pl.DataFrame, shares: Mapping[str, float], tokens: int, store: TokenStore, out: Path, settings: Scaling, seed: int
) -> Sequences:
    """Sequences of one run in `out`: `tokens` tokens of the sampled documents in these shares."""
    proxy = settings.proxy
    rules = Mixture(budget_tokens=tokens, component_column="component", max_repetition=proxy.max_repetition * (1 + 1e-6))
    table = mixture(available(sampled), rules, shares=shares)
    packing = Packing(sequence_length=proxy.sequence_length, max_padding=0.0, seed=seed)
    return pack(
        sampled.select("id", "text_hash", "source", "component", "repetitions"), table, store, out, packing, seed
    ).sequences


def held_out(documents: pl.DataFrame, domains: Sequence[str], most: int, characters: int) -> pl.DataFrame:
    """The beginnings of at most so many documents of each of these domains, first ids first: what losses are measured on."""
    inside = documents.filter(pl.col("domain").is_in(list(domains))).sort("id")
    few = inside.group_by("domain", maintain_order=True).head(most).with_columns(pl.col("text").str.slice(0, characters))
    if few.is_empty():
        raise MidtrainError(f"no document of {', '.join(domains)} is held out; lower held_out.one_in or add documents")
    return few.with_columns(text_hash=pl.col("text").map_elements(text_hash, return_dtype=pl.String))


def pack_held_out(documents: pl.DataFrame, store: TokenStore, out: Path, length: int) -> Sequences:
    """Held-out documents as sequences whose components are their domains, everything once."""
    rows = documents.with_columns(component=pl.col("domain"), repetitions=pl.lit(1.0))
    store.add(rows)
    names = sorted(rows["component"].unique())
    settings = Mixture(components=[Component(name=n) for n in names], method="natural")
    table = mixture(available(store.count(rows)), settings)
    short = rows.select("id", "text_hash", "source", "component", "repetitions")
    return pack(short, table, store, out, Packing(sequence_length=length, max_padding=1.0)).sequences


def candidate_caps(there: pl.DataFrame, settings: Mixture, proxy_limits: Mapping[str, float]) -> dict[str, float]:
    """Component → largest share that both the proxies and the run itself allow: p ≤ k·N/R (Olmix)."""
    limits = dict(proxy_limits)
    if settings.budget_tokens:
        own = {c.name: c.max_repetition for c in settings.components}
        for name, has in there.select("component", "tokens").iter_rows():
            k = own.get(name) or settings.max_repetition
            limits[name] = min(limits[name], k * has / settings.budget_tokens)
    return limits


def domain_weights(domains: Sequence[str], target: Sequence[str], target_weight: float) -> np.ndarray:
    """Weight of each domain's loss: the target domains share `target_weight`, the others the rest; they sum to one."""
    inside = np.array([d in target for d in domains])
    weights = np.where(inside, target_weight / max(inside.sum(), 1), (1 - target_weight) / max((~inside).sum(), 1))
    return np.asarray(weights / weights.sum())


def weighted(losses: pl.DataFrame, weights: np.ndarray) -> np.ndarray:
    """Weighted mean loss of each run, (n,)."""
    return np.asarray(losses.to_numpy().astype(float) @ weights)


def judged(regression: Regression, shares: pl.DataFrame, losses: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Domain → error of the regression on runs that it has not seen: `mae` in nats, and `bias` (predicted − measured)."""
    if shares.is_empty():
        return {}
    error = regression.predict(normalised(shares)) - losses.to_numpy()
    return {
        d: {"mae": float(np.abs(error[:, j]).mean()), "bias": float(error[:, j].mean())} for j, d in enumerate(losses.columns)
    }
