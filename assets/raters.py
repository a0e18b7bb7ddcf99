"""Raters that learn before they can rate: one asset each, from the project's documents, or from what the teacher says of them.

Each is made once for its settings: were there a new rater for every new document, all documents would be rated anew.
"""

from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl

from assets.measure import measured
from assets.outcome import OWNERS, of_artifact, plot, progress
from midtrain_dagster.code import code_version
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import Project
from midtrain_dagster.project.raters import DsirRater, EduRater, Examples, FastTextRater, Learning, QuRater, learns
from midtrain_dagster.rate.learn import from_documents, from_teacher
from midtrain_dagster.refresh import fingerprint
from midtrain_dagster.select.conditions import resolve
from midtrain_dagster.tables import database
from resources.embedder import Embedder
from resources.lake import Lake
from resources.project_teacher import ProjectTeacher
from resources.teacher import answers

GROUP = "rate"
HEADS = code_version(*(f"rate.{name}" for name in ("learn", "teach", "heads", "held_out", "batching", "edu", "qurater")))
CODE = {
    "fasttext": code_version("rate.learn", "rate.fasttext", "rate.held_out"),
    "dsir": code_version("rate.learn", "rate.dsir"),
    "edu": HEADS,
    "qurater": HEADS,
}
SAYS = {
    "fasttext": "fastText classifier `{name}`: what positives look like, against negatives.",
    "dsir": "Importance weights `{name}` of hashed n-grams: target against raw (DSIR).",
    "edu": "Head `{name}` on frozen embeddings, learnt from the teacher's scores, 0 to 5 (FineWeb-Edu).",
    "qurater": "Head `{name}` on frozen embeddings, learnt from the teacher's choices in both orders (QuRating).",
}


def described(rater: Learning, project: Project) -> dict[str, Any]:
    """What every such asset has."""
    return {
        "key": ["rater", rater.name],
        "deps": [["clean_documents", source.name] for source in project.sources],
        "group_name": GROUP,
        "owners": OWNERS,
        "code_version": CODE[rater.kind],
        "description": SAYS[rater.kind].format(name=rater.name) + " Kept until its settings change.",
    }


def exemplified(rater: FastTextRater | DsirRater, project: Project) -> dg.AssetsDefinition:
    """A rater that learns from documents alone."""
    seed = rater.training.seed if isinstance(rater, FastTextRater) else 0

    @dg.asset(**described(rater, project), kinds={"fasttext" if isinstance(rater, FastTextRater) else "numpy"})
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        artifact, made = lake.artifacts.build(
            f"rater/{rater.name}",
            fingerprint(CODE[rater.kind], rater.model_dump(mode="json")),
            lambda out: from_documents(rater, lambda side: examples(side, lake, seed), out),
            {"clean_documents": lake.tables.version("clean_documents")},
        )
        return of_artifact(context, artifact, made, pictures(artifact.path))

    return asset


def pictures(folder: Path) -> dict[str, dg.MetadataValue]:
    """How a classifier does on what was kept from it; nothing for what has no such examples."""
    from midtrain_dagster.rate.plots import held_out

    if not (folder / "curve.parquet").exists():
        return {}
    shown = held_out(pl.read_parquet(folder / "curve.parquet"), pl.read_parquet(folder / "calibration.parquet"))
    return {"precision and recall": plot(shown)}


def taught(rater: EduRater | QuRater, project: Project) -> dg.AssetsDefinition:
    """A head over the project's encoder that learns from the teacher."""
    most, questions = (rater.annotations, 1) if isinstance(rater, EduRater) else (rater.pairs, 2)

    @dg.asset(**described(rater, project), kinds={"pytorch"}, pool="teacher")
    @measured
    def asset(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        teacher: dg.ResourceParam[ProjectTeacher],
        embedder: dg.ResourceParam[Embedder],
    ) -> dg.MaterializeResult:
        def learn(out: Path) -> tuple[str, dict[str, Any]]:
            texts = examples(Examples(condition="true", most=most), lake, rater.training.seed)
            counted = progress(context, f"ask the teacher for {rater.name}", "answers", most * questions)
            return from_teacher(rater, texts, answers(teacher.open(), f"rate/{rater.name}", counted), embedder, out)

        artifact, made = lake.artifacts.build(
            f"rater/{rater.name}",
            fingerprint(CODE[rater.kind], rater.model_dump(mode="json"), teacher.version, embedder.version),
            learn,
            {"clean_documents": lake.tables.version("clean_documents")},
        )
        return of_artifact(context, artifact, made, {})

    return asset


def examples(side: Examples, lake: Lake, seed: int) -> list[str]:
    """Texts of the documents that a condition names, at most so many, chosen by hash of seed and id."""
    if side.condition is None:
        raise MidtrainError(
            "a rater's examples: files are for `midtrain rate`; in a project, make them a source and name a condition"
        )
    relation = lake.tables.relation("clean_documents")
    schema = dict.fromkeys(lake.tables.schema("clean_documents"), "VARCHAR")
    condition = resolve(side.condition, {"document": schema}, "a rater's examples").sql
    chosen = (
        f"select text from {relation} document where ({condition}) order by md5(concat({int(seed)}, id)) limit {int(side.most)}"
    )
    try:
        with database() as con:
            return [row[0] for row in con.execute(chosen).fetchall()]
    except duckdb.Error as error:
        raise MidtrainError(f"a rater's examples: `{side.condition}` failed: {' '.join(str(error).split())[:200]}") from None


def assets(project: Project) -> list[dg.AssetsDefinition]:
    """One for each rater that learns."""
    return [
        taught(rater, project) if isinstance(rater, EduRater | QuRater) else exemplified(rater, project)
        for rater in project.raters
        if learns(rater)
    ]


def checks(project: Project) -> list[dg.AssetChecksDefinition]:
    """A rater that cannot tell its own positives from its negatives, or that does not follow its teacher, is of no use."""
    learning = [rater for rater in project.raters if learns(rater)]
    return [
        *(better_than_chance(rater) for rater in learning if isinstance(rater, FastTextRater)),
        *(agrees_with_teacher(rater) for rater in learning if isinstance(rater, EduRater | QuRater)),
    ]


def better_than_chance(rater: FastTextRater) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=["rater", rater.name], name="better_than_chance")
    def check(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        """Average precision on held-out examples is above the share of positives; calibration error is shown."""
        artifact = lake.artifacts.current(f"rater/{rater.name}")
        points = pl.read_parquet(artifact.path / "curve.parquet")
        share = float(points["precision"][-1])
        precision = float(artifact.about["average precision"])
        return dg.AssetCheckResult(
            passed=precision > share,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "average precision": precision,
                "share of positives": share,
                **{k: v for k, v in artifact.about.items() if "calibration" in k},
            },
        )

    return check


def agrees_with_teacher(rater: EduRater | QuRater) -> dg.AssetChecksDefinition:
    measure, least = ("spearman", 0.0) if isinstance(rater, EduRater) else ("held_out_accuracy", 0.5)

    @dg.asset_check(asset=["rater", rater.name], name="agrees_with_teacher")
    def check(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        """On texts that it was not trained on, the head orders as the teacher does more often than chance would."""
        about = lake.artifacts.current(f"rater/{rater.name}").about
        value = about.get(measure)
        return dg.AssetCheckResult(
            passed=value is not None and float(value) > least, severity=dg.AssetCheckSeverity.WARN, metadata=dict(about)
        )

    return check
