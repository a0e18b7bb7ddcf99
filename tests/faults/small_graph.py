"""The small project of the faults: its stages, one run of one of them, and what a stage has afterwards."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import polars as pl
from small_project import prose, write_lines, write_project

from assets import graph
from midtrain_dagster import definitions as composed
from midtrain_dagster.project import project as projects
from midtrain_dagster.project.project import Compute
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.tables import digest
from midtrain_dagster.train import run as training
from midtrain_dagster.train.plan import TrainingPlan
from resources.gpu import Gpu
from resources.lake import Lake

RECIPE = {
    "name": "tiny",
    "description": "For faults: four steps of a tiny model.",
    "goal": {"objectives": ["coding"], "target": ["code"], "general": ["prose"], "tolerance": 10.0},
    "base": {"kind": "scratch", "layers": 1, "hidden": 32, "heads": 2, "vocabulary": 300, "context": 64},
    "held_out": {"one_in": 4, "documents": 2, "characters": 300},
    "selection": {"rules": [{"name": "too short", "keep": "document.characters >= 20"}]},
    "mixture": {"component_column": "domain", "method": "natural", "budget_tokens": 2048, "max_repetition": 20},
    "packing": {"sequence_length": 64},
    "training": {
        "peak_learning_rate": 0.003,
        "schedule": [{"shape": "warmup", "share": 0.25}, {"shape": "linear"}],
        "batch_sequences": 4,
        "micro_batch": 4,
        "precision": "fp32",
        "checkpoint_every": 1,
    },
    "evaluation": {"precision": "float32", "tasks": []},
}


class Stage(NamedTuple):
    """One asset, the tables that it writes and the artifact that it makes."""

    asset: str
    tables: tuple[str, ...] = ()
    artifact: str = ""


# In the order in which they run. Tables and artifacts are those that a trial compares.
STAGES = {
    "collect": Stage("raw_documents/prose", ("raw_documents", "rejected_records", "source_parts")),
    "clean": Stage("clean_documents/prose", ("clean_documents", "quality_signals", "sensitive_spans")),
    "synthesize": Stage("raw_documents/asked", ("raw_documents", "synthesis_outcomes")),
    "deduplicate": Stage("duplicate_clusters", ("duplicate_clusters", "signatures")),
    "questions": Stage("benchmark_questions", ("benchmark_questions",)),
    "decontaminate": Stage("contamination_matches/prose", ("contamination_matches",)),
    "rater": Stage("rater/codelike", artifact="rater/codelike"),
    "rate": Stage("document_ratings/prose", ("document_ratings",)),
    "select": Stage("selected_documents/tiny", ("selected_documents/tiny",)),
    "base": Stage("base_checkpoint/tiny", artifact="base_checkpoint/tiny"),
    "mix": Stage("mixture/tiny", artifact="mixture/tiny"),
    "pack": Stage("packed_sequences/tiny", artifact="packed_sequences/tiny"),
    "plan": Stage("training_plan/tiny", artifact="training_plan/tiny"),
    "train": Stage("midtrained_checkpoint/tiny", artifact="midtrained_checkpoint/tiny"),
    "lineage": Stage("lineage_report/tiny", artifact="lineage_report/tiny"),
}
SOURCES = ("/prose", "/code", "/asked")
# Everything that has to have run, so that what is downstream can.
ORDER = (
    *("raw_documents/prose", "raw_documents/code", "clean_documents/prose", "clean_documents/code", "raw_documents/asked"),
    *("clean_documents/asked", "duplicate_clusters", "benchmark_questions", "contamination_matches/prose"),
    *("contamination_matches/code", "contamination_matches/asked", "rater/codelike", "document_ratings/prose"),
    *("document_ratings/code", "document_ratings/asked", "selected_documents/tiny", "base_checkpoint/tiny", "mixture/tiny"),
    *("packed_sequences/tiny", "training_plan/tiny", "midtrained_checkpoint/tiny", "lineage_report/tiny"),
)


def train(plan: Path) -> dict[str, Any]:
    """What `python -m midtrain_dagster.train.run` does."""
    return training.run(TrainingPlan.read(plan), lambda line: None)


class InThisProcess(Gpu):
    """Trains here: a process that imports torch anew costs seconds. What is written, and when, is the same."""

    def launch(self, context: dg.AssetExecutionContext, plan: Path) -> dict[str, Any]:
        return train(plan)


class Project:
    """The small project with its graph; `run` runs one asset of it in whatever copy of the project."""

    def __init__(self, root: Path):
        self.file = write_project(root, documents=60)
        self._build(projects.load(self.file), root)

    @classmethod
    def of(cls, root: Path, settings: projects.Project) -> "Project":
        """The same sources with other settings."""
        made = cls.__new__(cls)
        made.file = root / "midtrain.yaml"
        made._build(settings, root)
        return made

    def _build(self, settings: projects.Project, root: Path) -> None:
        self.settings = settings
        self.recipe = Recipe.check(RECIPE, "tiny")
        built, _ = graph(self.settings, [self.recipe], root)
        self.assets = {asset.key.to_user_string(): asset for asset in built}
        self.instance = dg.DagsterInstance.ephemeral()  # made once: it costs more than most stages

    def run(self, asset: str, root: Path) -> dg.MaterializeResult:
        made = composed.resources(self.settings, root) | {"gpu": InThisProcess(Compute(device="cpu", threads=1))}
        found: dg.MaterializeResult = self.assets[asset](dg.build_asset_context(resources=made, instance=self.instance))
        return found

    def do(self, asset: str, root: Path) -> None:
        """The same, for a process whose answer is that it ended."""
        self.run(asset, root)


def grow(root: Path) -> None:
    """The outside world moves on: a document is added, one changed, one withdrawn."""
    path = root / "prose.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row for row in rows if row["id"] != "p5"]
    rows[1]["text"] = "It was changed. " + rows[1]["text"]
    rows += [{"id": f"late{i}", "text": prose(300 + i)} for i in range(4)]
    write_lines(path, rows)


def measured(root: Path, stage: Stage) -> dict[str, Any]:
    """What a stage has: content from the files, what the records say, rows that are there twice, digest of the artifact."""
    lake = Lake(root, "lake")
    found: dict[str, Any] = {}
    for name in stage.tables:
        if not lake.tables.exists(name):
            found[name] = None
            continue
        source = stage.asset.rpartition("/")[2] if stage.asset.endswith(SOURCES) else None
        rows = lake.tables.read(name, source).drop("cached", "cost", strict=False)  # how a reply was come by
        if "metadata" in rows.columns:  # a document that was there already keeps the line where it was first read
            rows = rows.with_columns(pl.col("metadata").str.replace(r'"location": "[^"]*"', ""))
        keys = [c for c in rows.columns if c not in ("collected", "metadata", "parent_ids", "bands", "sketch")]
        whole = lake.tables.read(name, source)
        told = {record.asset: record for record in lake.tables.records(name)}.get(stage.asset)
        found[name] = {
            "content": digest(rows),
            "rows": len(rows),
            "twice": int(rows.select(keys).is_duplicated().sum()) if "id" in keys and name != "sensitive_spans" else 0,
            "record holds": told is None or told.digest == digest(whole),
        }
    if stage.artifact:
        artifact = lake.artifacts.current(stage.artifact)
        found[stage.artifact] = {"content": artifact.digest}
        found["left half made"] = sorted(
            p.name.partition("-")[0] for p in (lake.artifacts.root / stage.artifact).iterdir() if p.name.startswith(".partial")
        )
    return found
