"""What a takedown touches: documents, what was made of them, tables, mixtures, sequences and checkpoints."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from midtrain_dagster.artifacts import Artifact, Artifacts
from midtrain_dagster.audit.document import trained
from midtrain_dagster.audit.spans import Packed, readings
from midtrain_dagster.tables import Tables
from midtrain_dagster.withdrawals import RULES, TOMBSTONES, Rule, meets, withdrawn

COLUMNS = ("id", "text_hash", "url", "license", "source", "domain", "parent_ids")
NAMING = ("id", "parent_id")  # columns that name a document, in whatever table


class Affected(NamedTuple):
    """What a takedown would withdraw, and what has been made with it."""

    documents: pl.DataFrame  # id, text_hash, url, license, source, via
    copies: dict[str, int]  # exact and near copies that are not among the documents
    tables: dict[str, int]  # table → rows about these documents
    artifacts: list[dict[str, Any]]  # mixtures, sequences, checkpoints, evaluations

    def values(self) -> dict[str, Any]:
        """As JSON values."""
        by_source = self.documents.group_by("source").len().sort("source")
        return {
            "documents": len(self.documents),
            "by_source": dict(by_source.iter_rows()),
            "made_from_them": len(self.documents.filter(pl.col("via").str.starts_with("made from"))),
            "copies_not_withdrawn": self.copies,
            "tables": self.tables,
            "artifacts": self.artifacts,
        }


def affected(tables: Tables, artifacts: Artifacts, rules: tuple[Rule, ...], copies: str, recipes: Iterable[str]) -> Affected:
    """Everything that some rules touch. `copies`: none, exact or near: whether copies go with their originals."""
    rows = tables.scan("raw_documents").select(COLUMNS)
    found = rows.with_columns(via=meets(rules)).filter(pl.col("via").is_not_null()).collect()
    found = pl.concat([found, gone_before(artifacts, rules, found, recipes)], how="diagonal")
    alike = copies_of(tables, rows, found)
    taken = alike.filter(pl.col("kind").is_in({"none": [], "exact": ["exact"], "near": ["exact", "near"]}[copies]))
    found = pl.concat([found, taken.drop("kind")], how="diagonal")
    found = descendants(rows, found)
    left = alike.join(found, on="id", how="anti").group_by("kind").len().sort("kind")
    about = {name: rows_about(tables, name, found) for name in tables.names() if name not in (RULES, TOMBSTONES)}
    return Affected(
        found.drop("domain", "parent_ids"),
        dict(left.iter_rows()),
        {name: rows for name, rows in about.items() if rows is not None},
        made_with(artifacts, found, recipes),
    )


def gone_before(artifacts: Artifacts, rules: tuple[Rule, ...], found: pl.DataFrame, recipes: Iterable[str]) -> pl.DataFrame:
    """Documents named by id that their source no longer has, but that some run was made to read: id, text_hash, source, via."""
    missing = [rule.value for rule in rules if rule.kind == "id" and rule.value not in set(found["id"])]
    files = [f for r in recipes for p in artifacts.all(f"packed_sequences/{r}") for f in p.path.glob("**/documents.parquet")]
    rows = [pl.scan_parquet(file).select("id", "text_hash", "source").filter(pl.col("id").is_in(missing)) for file in files]
    if not missing or not rows:
        return found.select("id", "text_hash", "source", "via").clear()
    return pl.concat(rows).unique("id").sort("id").with_columns(via=pl.lit("id ") + pl.col("id")).collect()


def copies_of(tables: Tables, rows: pl.LazyFrame, found: pl.DataFrame) -> pl.DataFrame:
    """Other documents with the text of one that was found, or of its near-duplicate cluster: COLUMNS, via, kind."""
    others = rows.join(found.lazy().select("id"), on="id", how="anti")
    first = found.unique("text_hash", keep="first", maintain_order=True).lazy().select("text_hash", of="id")
    exact = others.join(first, on="text_hash").with_columns(kind=pl.lit("exact")).collect()
    parts = [exact]
    if tables.exists("duplicate_clusters"):
        clusters = tables.scan("duplicate_clusters").select("id", "near_cluster").drop_nulls()
        mine = clusters.join(found.lazy().select("id"), on="id", how="semi").group_by("near_cluster").agg(of=pl.col("id").min())
        near = others.join(clusters.join(mine, on="near_cluster").select("id", "of"), on="id")
        parts.append(near.with_columns(kind=pl.lit("near")).collect().join(exact, on="id", how="anti"))
    joined = pl.concat([part.select(*COLUMNS, "kind", "of") for part in parts])
    return joined.with_columns(via=pl.lit("copy of ") + pl.col("of")).drop("of").unique("id", keep="first", maintain_order=True)


def descendants(rows: pl.LazyFrame, found: pl.DataFrame) -> pl.DataFrame:
    """The documents, and all that were made from them, and from these in turn."""
    edges = rows.filter(pl.col("parent_ids").list.len() > 0).collect().explode("parent_ids", keep_nulls=False)
    while True:
        new = edges.join(found.select(parent_ids="id"), on="parent_ids").join(found, on="id", how="anti")
        if not len(new):
            return found
        new = new.unique("id", keep="first", maintain_order=True).with_columns(via=pl.lit("made from ") + pl.col("parent_ids"))
        found = pl.concat([found, new.drop("parent_ids")], how="diagonal")


def rows_about(tables: Tables, name: str, found: pl.DataFrame) -> int | None:
    """How many rows of a table speak of some documents; None for a table that names none."""
    naming = [column for column in NAMING if column in tables.schema(name)]
    if not naming:
        return None
    ids = found["id"].implode()
    met = pl.any_horizontal(pl.col(column).is_in(ids) for column in naming)
    return int(tables.scan(name).select(naming).filter(met).select(pl.len()).collect().item())


def made_with(artifacts: Artifacts, found: pl.DataFrame, recipes: Iterable[str]) -> list[dict[str, Any]]:
    """Every mixture, packing, checkpoint and evaluation that holds any of the documents, and how much of it they are."""
    made: list[dict[str, Any]] = []
    for recipe in recipes:
        for mixture in artifacts.all(f"mixture/{recipe}"):
            made += held(f"mixture/{recipe}", mixture, [mixture.path / "documents.parquet"], found)
        for packed in artifacts.all(f"packed_sequences/{recipe}"):
            files = sorted(packed.path.glob("**/documents.parquet"))
            made += held(f"packed_sequences/{recipe}", packed, files, found)
        made += [use for checkpoint, packed in trained(artifacts, recipe) for use in seen(recipe, checkpoint, packed, found)]
        for name in ("base_evaluation", "midtrained_evaluation"):
            for evaluation in artifacts.all(f"{name}/{recipe}"):
                made += held(f"{name}/{recipe}", evaluation, [evaluation.path / "bits_per_byte.parquet"], found)
    return made


def held(name: str, artifact: Artifact, files: list[Path], found: pl.DataFrame) -> list[dict[str, Any]]:
    """One row where any of the files lists one of the documents."""
    scans = [pl.scan_parquet(file).select("id") for file in files if file.exists()]
    if not scans:
        return []
    ids = pl.concat(scans).unique().join(found.lazy().select("id"), on="id", how="semi").collect()
    return [{"artifact": f"{name}@{artifact.fingerprint}", "documents": len(ids)}] if len(ids) else []


def seen(recipe: str, checkpoint: Artifact, sequences: Artifact, found: pl.DataFrame) -> list[dict[str, Any]]:
    """How often a checkpoint's training read any of the documents, and how many tokens that were."""
    packed = Packed(sequences.path / "train", sequences.path.parents[3] / "cache")
    numbers = packed.documents.numbers(found)
    if not len(numbers):
        return []
    spans = packed.of_documents(numbers["document"].to_numpy())
    total = documents = times = 0
    share = 0.0
    for run in readings(checkpoint, packed.folder):
        read = run.times(spans[:, 0])
        total += int((read * spans[:, 2]).sum())
        times += int(read[spans[:, 5] == 0].sum())
        documents = max(documents, len(np.unique(spans[read > 0, 4])))
        share = max(share, (read * spans[:, 2]).sum() / max(1, run.end * packed.length))
    if not total:
        return []
    name = f"midtrained_checkpoint/{recipe}@{checkpoint.fingerprint}"
    return [{"artifact": name, "documents": documents, "times": times, "tokens": total, "share_of_tokens": round(share, 9)}]


def marks(tables: Tables, recipe: str, checkpoint: Artifact, sequences: Artifact) -> list[dict[str, Any]]:
    """What has been withdrawn since a checkpoint read it: one row a takedown, with its reason, documents and tokens.

    Computed from the tombstones and from what the run read, so it holds for every checkpoint whenever it was made.
    """
    if not tables.exists(TOMBSTONES) or not withdrawn(tables):
        return []
    stones, why = tables.read(TOMBSTONES), tables.read(RULES)
    reasons = why.unique("takedown", keep="first").select("takedown", "reason", "requested_by", "at")
    told = []
    for (name,), some in sorted(stones.group_by("takedown"), key=lambda pair: str(pair[0][0])):
        for use in seen(recipe, checkpoint, sequences, some):
            row = reasons.filter(pl.col("takedown") == name)
            about = row.row(0, named=True) if len(row) else {"takedown": name, "reason": "", "requested_by": "", "at": None}
            told.append({**about, "at": str(about["at"]), **{k: use[k] for k in ("documents", "times", "tokens")}})
    return told
