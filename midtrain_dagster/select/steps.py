"""The steps that look at more than one document: duplicates, sampling, quotas. Each becomes one common table expression.

A step sees only documents that are still in (`reason IS NULL`); it ranks them within a group and gives those beyond the limit
its reason. Chance is a hash of seed, the step's name and the document's id, so the order within a group is the same whatever
else the group holds.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.selection import Deduplication, DownSample, Quota, Selection, Temperature
from midtrain_dagster.select.conditions import Expression, Schemas, literal, quoted, resolve


class Step(NamedTuple):
    """A common table expression over the one before it, and the columns that it wants computed beside each document."""

    name: str
    body: Callable[[str], str]  # name of the relation before → SQL
    needs: Mapping[str, Expression]  # column name → what it holds


def steps(selection: Selection, seed: int, schemas: Schemas) -> list[Step]:
    """The group steps of a selection in their order: duplicates, down-sampling, temperature, quotas."""
    found: list[Step] = []
    if selection.deduplication:
        found += _unique(selection.deduplication, schemas)
    if selection.down_sample:
        found.append(_thinned(selection.down_sample, seed, schemas))
    if selection.temperature:
        found += _drawn(selection.temperature, seed, schemas)
    for number, quota in enumerate(selection.quotas, start=1):
        found += _within(quota, f"quota_{number}", seed, schemas)
    return found


def uniform(seed: int, salt: str) -> str:
    """SQL for a number in (0, 1) that depends on seed, salt and id alone: the same on every machine and in every table."""
    return f"(((md5_number_lower({literal(f'{seed}:{salt}:')} || id) >> 11) + 0.5) / 9007199254740992.0)"


def _unique(rule: Deduplication, schemas: Schemas) -> list[Step]:
    """One survivor per cluster, one column of clusters after the other."""
    needs: dict[str, Expression] = {}
    order = {"longest": "characters DESC NULLS LAST"}
    if "longest" in rule.survivor and "characters" not in schemas["document"]:
        raise MidtrainError("deduplication: survivor longest needs the column characters of documents")
    if rule.rater is not None:
        needs["survivor_rating"] = resolve(f"rate.{quoted(rule.rater)}", schemas, "deduplication")
        order["best_rated"] = "survivor_rating DESC NULLS LAST"
    ranks = " ".join(f"WHEN {literal(source)} THEN {rank}" for rank, source in enumerate(rule.preferred_sources))
    order["preferred_source"] = f"CASE source {ranks} ELSE {len(rule.preferred_sources)} END"
    best_first = ", ".join([*(order[key] for key in rule.survivor), "id"])
    found: list[Step] = []
    for number, column in enumerate(rule.by, start=1):
        key = f"cluster_{number}"
        cluster = {key: resolve(f"cluster.{quoted(column)}", schemas, "deduplication")}
        found.append(Step(f"unique_{number}", partial(_ranked, key, best_first, f"duplicate: {column}"), {**needs, **cluster}))
    return found


def _ranked(key: str, best_first: str, reason: str, previous: str) -> str:
    """SQL that ranks the members of each cluster. Most documents are alone, and to rank those takes longer than all else."""
    several = f"(SELECT {key} FROM {previous} WHERE reason IS NULL AND {key} IS NOT NULL GROUP BY {key} HAVING count(*) > 1)"
    place = f"row_number() OVER (PARTITION BY {key} ORDER BY {best_first})"
    return (
        f"  SELECT * FROM {previous} AS p ANTI JOIN {several} AS s ON p.reason IS NULL AND p.{key} = s.{key}\n  UNION ALL\n"
        f"  SELECT * REPLACE (CASE WHEN {place} > 1 THEN {literal(reason)} END AS reason)\n"
        f"  FROM {previous} AS p SEMI JOIN {several} AS s ON p.reason IS NULL AND p.{key} = s.{key}"
    )


def _thinned(samples: tuple[DownSample, ...], seed: int, schemas: Schemas) -> Step:
    """Down-sampling: a threshold on a hash, so each document's fate is its own."""
    needs: dict[str, Expression] = {}
    cases: list[str] = []
    for number, sample in enumerate(samples, start=1):
        scope = ""
        if sample.where:
            needs[f"sample_{number}"] = resolve(sample.where, schemas, f"down_sample {sample.name}")
            scope = f"sample_{number} IS TRUE AND "
        cases.append(f"WHEN {scope}{uniform(seed, sample.name)} >= {sample.fraction!r} THEN {literal(sample.name)}")
    reason = f"CASE WHEN reason IS NOT NULL THEN reason {' '.join(cases)} END"
    return Step("thinned", lambda previous: f"  SELECT * REPLACE ({reason} AS reason)\n  FROM {previous}", needs)


def _drawn(rule: Temperature, seed: int, schemas: Schemas) -> list[Step]:
    """Gumbel top-k to a budget. The moments of the rating are rounded, for a parallel sum ends in bits that vary."""
    needs = {"drawn_rating": resolve(f"rate.{quoted(rule.rater)}", schemas, "temperature")}
    if rule.by:
        needs["drawn_group"] = resolve(rule.by, schemas, "temperature")
    group = ", drawn_group" if rule.by else ""
    unrated = Step("rated", _marking("drawn_rating IS NULL", "temperature: not measured"), needs)
    mean = repr(rule.mean) if rule.mean is not None else "round(avg(drawn_rating) OVER (PARTITION BY reason IS NULL), 9)"
    spread = "round(stddev_pop(drawn_rating) OVER (PARTITION BY reason IS NULL), 9)"
    deviation = repr(rule.deviation) if rule.deviation is not None else f"coalesce(nullif({spread}, 0), 1)"
    noise = f"- ln(-ln({uniform(seed, 'temperature')}))"
    key = f"(drawn_rating - {mean}) / {deviation} / {rule.temperature!r} {noise}" if rule.temperature else "drawn_rating"
    keyed = Step("keyed", lambda previous: f"  SELECT *, {key} AS drawn_key\n  FROM {previous}", {})
    window = f"(PARTITION BY reason IS NULL{group} ORDER BY drawn_key DESC, id ROWS UNBOUNDED PRECEDING)"
    if rule.tokens is not None:
        _demand("tokens", schemas, "temperature")
        beyond = f"tokens IS NULL OR sum(tokens) OVER {window} > {rule.tokens}"
    elif rule.documents is not None:
        beyond = f"row_number() OVER {window} > {rule.documents}"
    else:
        everyone = f"count(*) OVER (PARTITION BY reason IS NULL{group})"
        beyond = f"row_number() OVER {window} > {rule.fraction!r} * {everyone}"
    return [unrated, keyed, Step("drawn", _marking(beyond, "temperature"), {})]


def _within(quota: Quota, name: str, seed: int, schemas: Schemas) -> list[Step]:
    """A cap per group: by hash, or the best first."""
    group, key = f"{name}_group", f"{name}_best"
    needs = {group: resolve(quota.by, schemas, f"quota {quota.name}")}
    first = uniform(seed, quota.name)
    if quota.best:
        needs[key] = resolve(quota.best, schemas, f"quota {quota.name}")
        first = f"{key} DESC NULLS LAST, {first}"
    limit = "NULL" if quota.limit is None else str(quota.limit)
    if quota.limits:
        cases = " ".join(f"WHEN {literal(value)} THEN {most}" for value, most in quota.limits.items())
        limit = f"CASE {group}::VARCHAR {cases} ELSE {limit} END"
    window = f"(PARTITION BY reason IS NULL, {group} ORDER BY {first}, id ROWS UNBOUNDED PRECEDING)"
    over = f"row_number() OVER {window} > {limit}"
    if quota.unit != "documents":
        _demand(quota.unit, schemas, f"quota {quota.name}")
        over = f"{limit} IS NOT NULL AND ({quota.unit} IS NULL OR sum({quota.unit}) OVER {window} > {limit})"
    return [Step(name, _marking(over, quota.name), needs)]


def _demand(column: str, schemas: Schemas, where: str) -> None:
    if column not in schemas["document"]:
        raise MidtrainError(f"{where}: a budget in {column} needs the column {column} of documents")


def _marking(beyond: str, reason: str) -> Callable[[str], str]:
    """SQL that gives `reason` to the documents still in for which `beyond` holds."""
    marked = f"CASE WHEN reason IS NULL AND ({beyond}) THEN {literal(reason)} ELSE reason END"
    return lambda previous: f"  SELECT * REPLACE ({marked} AS reason)\n  FROM {previous}"
