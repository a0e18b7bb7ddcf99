"""The one query of a selection: from settings to SQL that a person can read, run and keep in the lineage.

The query is a chain of common table expressions. `judged` joins what was measured and gives each document the first verdict
that it fails; each later one (`unique_…`, `sampled`, `drawn`, `quota_…`) ranks the documents that are still in and marks those
beyond its limit. No step removes a row.
"""

from collections.abc import Mapping, Sequence

import duckdb

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.selection import Rule, Selection, UpSample
from midtrain_dagster.select.conditions import TABLES, Column, Expression, Schemas, literal, quoted, resolve
from midtrain_dagster.select.steps import steps, uniform

BASE = ("id", "text_hash", "source", "characters", "tokens")
FLOATS = ("FLOAT", "DOUBLE")
MATCHES = "SELECT id, max(score) AS score, count(*) AS questions FROM matches GROUP BY id"

Rulesets = Mapping[str, Sequence[Rule]]


def build(con: duckdb.DuckDBPyConnection, selection: Selection, seed: int, rulesets: Rulesets | None = None) -> str:
    """The selection as one SQL query over the relations `documents`, `signals`, `clusters`, `ratings`, `matches` of `con`.

    Its rows: id, text_hash, source, characters, tokens, kept, reason, repetitions; one for each row of `documents`, unordered.
    Raises MidtrainError for a condition that is refused and for a relation or column that the selection needs and `con` lacks.
    """
    schemas = measured(con)
    verdicts = _verdicts(selection, rulesets or {}, schemas)
    limits = steps(selection, seed, schemas)
    repeats = [
        (f"repeat_{number}", resolve(step.where, schemas, f"up_sample {number}"), step)
        for number, step in enumerate(selection.up_sample, start=1)
    ]
    needs = {name: expression for limit in limits for name, expression in limit.needs.items()}
    needs |= {name: expression for name, expression, _ in repeats}
    parts = ["WITH judged AS (\n" + _judged(verdicts, needs, schemas) + "\n)"]
    previous = "judged"
    for limit in limits:
        parts.append(f"{limit.name} AS (\n{limit.body(previous)}\n)")
        previous = limit.name
    repetitions = _repetitions([(name, step) for name, _, step in repeats], seed, selection.max_repetition)
    return (
        ",\n".join(parts) + "\nSELECT id, text_hash, source, characters, tokens, reason IS NULL AS kept, reason,\n"
        f"  CASE WHEN reason IS NULL THEN {repetitions} ELSE 0 END::INTEGER AS repetitions\nFROM {previous}"
    )


def measured(con: duckdb.DuckDBPyConnection) -> Schemas:
    """Which relations `con` has, and their columns with DuckDB types; keyed by the word that conditions use."""
    found: dict[str, dict[str, str]] = {}
    for word, relation in TABLES.items():
        try:
            rows = con.execute(f"DESCRIBE {relation}").fetchall()
        except duckdb.CatalogException:
            continue
        found[word] = {name: kind for name, kind, *_ in rows}
    if "document" not in found:
        raise MidtrainError("there is no relation `documents` to select from")
    for word, columns in found.items():
        lacking = {"id", "source"} - set(columns) if word == "document" else {"id"} - set(columns)
        if lacking:
            raise MidtrainError(f"{TABLES[word]}: no column {', '.join(sorted(lacking))}")
    if "match" in found:
        if "score" not in found["match"]:
            raise MidtrainError("matches: no column score")
        found["match"] = {"score": found["match"]["score"], "questions": "BIGINT"}
    return found


def _verdicts(selection: Selection, rulesets: Rulesets, schemas: Schemas) -> list[tuple[str, frozenset[Column]]]:
    """SQL expressions that are null for a document that passes and its reason otherwise, in order."""
    found: list[tuple[str, frozenset[Column]]] = []
    include, exclude = selection.sources.include, selection.sources.exclude
    if include is not None:
        found.append((f"CASE WHEN {_one_of('document.source', include)} THEN NULL ELSE 'source' END", frozenset()))
    if exclude:
        found.append((f"CASE WHEN {_one_of('document.source', exclude)} THEN 'source' END", frozenset()))
    if selection.contamination:
        clean = Rule(name="contamination", keep=f"match.score < {selection.contamination.score!r}")
        found.append(_verdict(clean, schemas, "contamination"))
    for name in selection.quality:
        if name not in rulesets:
            raise MidtrainError(f"quality: there is no ruleset {name}; there are: {', '.join(sorted(rulesets)) or 'none'}")
        for rule in rulesets[name]:
            named = rule if rule.name.startswith(name) else rule.model_copy(update={"name": f"{name}: {rule.name}"})
            found.append(_verdict(named, schemas, f"quality {named.name}"))
    found += [_verdict(rule, schemas, f"rule {rule.name}") for rule in selection.rules]
    for rater, threshold in selection.ratings.items():
        column = f"rate.{quoted(rater)}"
        low = [f"{column} >= {threshold.at_least!r}"] if threshold.at_least is not None else []
        high = [f"{column} <= {threshold.at_most!r}"] if threshold.at_most is not None else []
        rule = Rule(name=f"rate.{rater}", keep=" AND ".join(low + high), unmeasured=threshold.unmeasured)
        found.append(_verdict(rule, schemas, f"ratings {rater}"))
    return found


def _verdict(rule: Rule, schemas: Schemas, where: str) -> tuple[str, frozenset[Column]]:
    keep = resolve(rule.keep, schemas, where)
    scope = resolve(rule.where, schemas, where) if rule.where else None
    unknown = "NULL" if rule.unmeasured == "keep" else literal(f"{rule.name}: not measured")
    verdict = f"CASE ({keep.sql})::BOOLEAN WHEN true THEN NULL WHEN false THEN {literal(rule.name)} ELSE {unknown} END"
    if scope is None:
        return verdict, keep.columns
    return f"CASE WHEN ({scope.sql}) IS TRUE THEN {verdict} END", keep.columns | scope.columns


def _one_of(column: str, values: Sequence[str]) -> str:
    return f"{column} IN ({', '.join(map(literal, values))})" if values else "false"


def _judged(verdicts: list[tuple[str, frozenset[Column]]], needs: Mapping[str, Expression], schemas: Schemas) -> str:
    columns = {column for _, read in verdicts for column in read} | {c for e in needs.values() for c in e.columns}
    own = {"characters": "NULL::BIGINT", "tokens": "NULL::BIGINT", "text_hash": "NULL::VARCHAR"}
    base = [f"document.{c}" if c in schemas["document"] else f"{own[c]} AS {c}" for c in BASE]
    reason = "coalesce(\n    " + ",\n    ".join([sql for sql, _ in verdicts] + ["NULL::VARCHAR"]) + "\n  ) AS reason"
    keys = [f"({expression.sql}) AS {name}" for name, expression in needs.items()]
    tables = [_join(word, sorted(c.name for c in columns if c.table == word), schemas) for word in TABLES if word != "document"]
    return "  SELECT " + ",\n  ".join([*base, reason, *keys]) + "\n  FROM documents AS document" + "".join(tables)


def _join(word: str, columns: list[str], schemas: Schemas) -> str:
    """LEFT JOIN of those columns of one attribute that are read, measured on the document's present text.

    NaN, which SQL holds to be larger than every number, becomes null. Contamination is the exception to "present text": a match
    that was found in an older text counts until the document is scanned anew.
    """
    if not columns:
        return ""
    if word == "match":
        return f"\n  LEFT JOIN ({MATCHES}) AS match ON match.id = document.id"
    hashed = "text_hash" in schemas[word] and "text_hash" in schemas["document"]
    read = ["id AS measured_id", *(["text_hash AS measured_hash"] if hashed else [])]
    for name in columns:
        column = quoted(name)
        number = f"CASE WHEN isnan({column}) THEN NULL ELSE {column} END AS {column}"
        read.append(number if schemas[word][name] in FLOATS else column)
    on = f"{word}.measured_id = document.id" + (f" AND {word}.measured_hash = document.text_hash" if hashed else "")
    return f"\n  LEFT JOIN (SELECT {', '.join(read)} FROM {TABLES[word]}) AS {word} ON {on}"


def _repetitions(repeats: Sequence[tuple[str, UpSample]], seed: int, cap: int) -> str:
    """How often a kept document is shown: the largest that applies, a fraction rounded up or down by hash, at most the cap."""
    times = ["1"]
    for name, step in repeats:
        whole = int(step.repetitions)
        part = step.repetitions - whole
        extra = f" + ({uniform(seed, name)} < {part!r})::INTEGER" if part else ""
        times.append(f"CASE WHEN {name} IS TRUE THEN {whole}{extra} ELSE 1 END")
    return f"least({cap}, greatest({', '.join(times)}))"
