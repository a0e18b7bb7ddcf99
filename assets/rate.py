"""Rate: one asset trains each rater that learns from the project's documents, one asset a source applies them all."""

from functools import partial
from pathlib import Path
from typing import Any, Final

import dagster as dg
import duckdb
import polars as pl

from assets.outcome import AUTOMATION, OWNERS, of_artifact, of_table, plot, progress
from assets.reading import before, passing
from midtrain_dagster.code import code_version
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import Project
from midtrain_dagster.project.raters import Examples, FastTextRater
from midtrain_dagster.project.raters import Rater as RaterSettings
from midtrain_dagster.rate import fasttext
from midtrain_dagster.rate.rate import Rater, merged, rate, unrated
from midtrain_dagster.refresh import Frames, by_document, fingerprint
from midtrain_dagster.select.conditions import resolve
from midtrain_dagster.shards import Engine
from resources.lake import Lake

GROUP: Final = "rate"
TABLE = "document_ratings"


def learns(rater: RaterSettings) -> bool:
    """Whether a rater is trained on the project's documents."""
    return isinstance(rater, FastTextRater) and rater.model is None


def trained(rater: FastTextRater, project: Project) -> dg.AssetsDefinition:
    """A rater's model. It is trained once for its settings: new documents do not make a new rater, or all would be rated anew."""

    @dg.asset(
        key=["rater", rater.name],
        deps=[["clean_documents", source.name] for source in project.sources],
        group_name=GROUP,
        kinds={"fasttext"},
        owners=OWNERS,
        code_version=code_version("rate"),
        description=f"fastText classifier `{rater.name}`: what positives look like, against negatives. Kept until its settings change.",
    )
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        mark = fingerprint(code_version("rate"), rater.model_dump(mode="json"))

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            sides = [examples(side, lake, rater.training.seed) for side in (rater.positives, rater.negatives) if side]
            model = fasttext.train(sides[0], sides[1], rater.training, out / "model.bin")
            model.held_out.curve.write_parquet(out / "curve.parquet")
            model.held_out.calibration.write_parquet(out / "calibration.parquet")
            return model.version, {
                "trained on": model.trained_on,
                "held-out examples": model.held_out.examples,
                "average precision": model.held_out.average_precision,
                "expected calibration error": model.held_out.expected_calibration_error,
            }

        artifact, made = lake.artifacts.build(
            f"rater/{rater.name}", mark, make, {"clean_documents": lake.tables.version("clean_documents")}
        )
        return of_artifact(context, artifact, made, {"precision and recall": plot(curve(artifact.path))})

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
        return [row[0] for row in duckdb.execute(chosen).fetchall()]
    except duckdb.Error as error:
        raise MidtrainError(f"a rater's examples: `{side.condition}` failed: {' '.join(str(error).split())[:200]}") from None


def curve(folder: Path) -> object:
    """Precision over recall, and confidence against accuracy, on held-out examples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.6))
    left, right = figure.subplots(1, 2)
    points = pl.read_parquet(folder / "curve.parquet")
    left.step(points["recall"], points["precision"], where="post")
    left.set_xlabel("recall")
    left.set_ylabel("precision")
    left.set_ylim(0, 1.02)
    bins = pl.read_parquet(folder / "calibration.parquet")
    right.plot([0, 1], [0, 1], color="0.8")
    right.plot(bins["confidence"], bins["accuracy"], marker="o")
    right.set_xlabel("confidence")
    right.set_ylabel("accuracy")
    figure.tight_layout()
    return figure


def opened(project: Project, lake: Lake) -> list[Rater]:
    """The project's raters, ready to score."""
    found: list[Rater] = []
    for rater in project.raters:
        if isinstance(rater, FastTextRater):
            model = (
                lake.artifacts.current(f"rater/{rater.name}").path / "model.bin"
                if rater.model is None
                else lake.root / rater.model
            )
            found.append(fasttext.FastText(rater.name, model, rater.label))
        else:
            from midtrain_dagster.rate.make import make

            found.append(make(rater))
    return found


OPENED: dict[tuple[str, str], Rater] = {}  # of this process, by name and version: a model is loaded once a machine


def scored(project: Project, lake: Lake, name: str, version: str, documents: pl.DataFrame) -> pl.DataFrame:
    """One rater's ratings of a shard, on whichever machine this runs."""
    if (name, version) not in OPENED:
        OPENED[name, version] = next(rater for rater in opened(project, lake) if rater.name == name)
    if OPENED[name, version].version != version:
        raise MidtrainError(f"rater {name}: this machine has version {OPENED[name, version].version}, wanted is {version}")
    return rate(documents, [OPENED[name, version]])


def document_ratings(source: str, project: Project, method: str) -> dg.AssetsDefinition:
    """Every rater's score of one source's documents."""
    deps: list[Any] = [
        ["clean_documents", source],
        *(["rater", r.name] for r in project.raters if learns(r)),
        *before(project.curation, GROUP, source, project.document_sources, True),
    ]

    @dg.asset(
        key=[TABLE, source],
        deps=deps,
        group_name=GROUP,
        kinds={"deltalake"},
        owners=OWNERS,
        code_version=code_version("rate"),
        automation_condition=AUTOMATION,
        tags={"midtrain/source": source},
        description=f"Scores of `{source}` by "
        + ", ".join(r.name for r in project.raters)
        + "; one column a rater, with its version.",
    )
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], engine: dg.ResourceParam[Engine]
    ) -> dg.MaterializeResult:
        raters = opened(project, lake)

        def work(new: pl.DataFrame) -> tuple[Frames, dict[str, object]]:
            """Rate what no rater of this version has rated: a new rater does not cost the old ones' work again."""
            old = (
                lake.tables.read(TABLE, source).drop("source")
                if lake.tables.record(TABLE, context.asset_key.to_user_string())
                else None
            )
            ratings = (old if old is not None else rate(new.clear(), raters)).join(
                new.select("id", "text_hash"), on=["id", "text_hash"], how="semi"
            )
            for rater in raters:
                todo = unrated(new, ratings, rater)
                counted = progress(context, f"rate {source} by {rater.name}", "documents", len(todo))
                score = partial(scored, project, lake, rater.name, rater.version)
                parts = [rate(todo.clear(), [rater])]
                for part in engine.map(score, todo.select("id", "text", "text_hash").iter_slices(project.compute.shard)):
                    parts.append(part)
                    counted.advance(len(part))
                ratings = merged(ratings, pl.concat(parts))
            columns = ["id", "text_hash", *(c for r in raters for c in (r.name, f"{r.name}_version"))]
            return {TABLE: ratings.select(columns)}, {}

        refreshed = by_document(
            lake.tables,
            asset=context.asset_key.to_user_string(),
            reads="clean_documents",
            writes=(TABLE,),
            source=source,
            base=fingerprint(code_version("rate"), {rater.name: rater.version for rater in raters}),
            work=work,
            passing=passing(lake, project.curation, GROUP, source, method),
        )
        return of_table(
            context, lake.tables, TABLE, refreshed, {"scores": plot(histogram(lake, source, [r.name for r in raters]))}
        )

    return asset


def histogram(lake: Lake, source: str, raters: list[str]) -> object:
    """How the scores of a source spread, a panel a rater."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(raters), 2.2))
    panels = figure.subplots(1, len(raters), squeeze=False)[0]
    scores = lake.tables.read(TABLE, source)
    for panel, rater in zip(panels, raters, strict=True):
        panel.hist(scores[rater].drop_nulls().to_list(), bins=30)
        panel.set_title(rater)
        panel.set_xlabel("score")
    panels[0].set_ylabel("documents")
    figure.tight_layout()
    return figure


def assets(project: Project, method: str) -> list[dg.AssetsDefinition]:
    """Raters that learn, and ratings of each source; nothing where the project has no raters."""
    if not project.raters:
        return []
    models = [trained(rater, project) for rater in project.raters if isinstance(rater, FastTextRater) and learns(rater)]
    return [*models, *(document_ratings(source, project, method) for source in project.document_sources)]


def checks(project: Project) -> list[dg.AssetChecksDefinition]:
    """A rater that cannot tell its own positives from its negatives is of no use."""

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

    return [better_than_chance(rater) for rater in project.raters if isinstance(rater, FastTextRater) and learns(rater)]
