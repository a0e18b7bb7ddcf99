"""Coordinate: several raters' scores become one that conditions can name; and what the raters have to say to each other."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import dagster as dg
import polars as pl

from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, markdown, of_artifact, of_table, plot, progress
from assets.reading import COORDINATED
from assets.weighing import weigh
from midtrain_dagster.artifacts import Artifact
from midtrain_dagster.code import code_version
from midtrain_dagster.project.coordination import Coordination, Intersection, WeightedSum
from midtrain_dagster.project.project import Project
from midtrain_dagster.project.raters import low_is_good
from midtrain_dagster.rate.coordinate import agreement, missed
from midtrain_dagster.rate.coordinated import fit, score
from midtrain_dagster.refresh import fingerprint, whole
from resources.gpu import POOL, Gpu
from resources.lake import Lake

GROUP: Final = "rate"
RATINGS = "document_ratings"
CODE = ("rate.coordinate", "rate.coordinated")


def coordinated_ratings(project: Project) -> dg.AssetsDefinition:
    """One column a coordination, over all sources."""
    learning = [entry for entry in project.coordinated if learns(entry)]

    @dg.asset(
        key=COORDINATED,
        deps=[*([RATINGS, source] for source in project.document_sources), *(["rater_weights", e.name] for e in learning)],
        group_name=GROUP,
        kinds={"polars", "deltalake"},
        owners=OWNERS,
        code_version=code_version(*CODE),
        automation_condition=AUTOMATION,
        description="Several raters' scores as one, for conditions on rate.<name>: "
        + "; ".join(f"{entry.name}, {entry.kind} of {', '.join(entry.raters)}" for entry in project.coordinated),
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        scales = {entry.name: scale_of(lake, entry, project) for entry in project.coordinated}

        def work() -> tuple[pl.DataFrame, dict[str, object]]:
            ratings = ratings_of(lake, project)
            columns = [
                score(entry, said(scales[entry.name]), as_meant(entry, ratings, project)) for entry in project.coordinated
            ]
            return ratings.select("id", "text_hash", "source").with_columns(columns), {"fitted on": fitted_on(scales)}

        made = whole(
            lake.tables,
            asset=COORDINATED,
            name=COORDINATED,
            base=fingerprint(code_version(*CODE), {name: artifact.fingerprint for name, artifact in scales.items()}),
            inputs=digests(lake, project),
            reads={RATINGS: lake.tables.version(RATINGS)},
            source=None,
            work=work,
        )
        rows = lake.tables.read(COORDINATED)
        some = [rows[e.name].value_counts(sort=True).head(20) for e in project.coordinated if rows[e.name].n_unique() <= 30]
        return of_table(context, lake.tables, COORDINATED, made, {f"documents by {f.columns[0]}": markdown(f) for f in some})

    return asset


def learns(entry: Coordination) -> bool:
    """Whether its weights come from proxy runs."""
    return isinstance(entry, WeightedSum) and entry.learnt is not None


def ratings_of(lake: Lake, project: Project) -> pl.DataFrame:
    """All ratings of the project's present sources, sorted by id."""
    return lake.tables.read(RATINGS).filter(pl.col("source").is_in(list(project.document_sources))).sort("id", "source")


def turned(ratings: pl.DataFrame, project: Project) -> pl.DataFrame:
    """With the sign changed of those whose low scores are the good ones (perplexity): more is better for all."""
    return ratings.with_columns(-pl.col(rater.name) for rater in project.raters if low_is_good(rater))


def as_meant(entry: Coordination, ratings: pl.DataFrame, project: Project) -> pl.DataFrame:
    """Scores as a coordination takes them: with thresholds and weights of the user's own as they are, else more is better."""
    given = isinstance(entry, Intersection) or (isinstance(entry, WeightedSum) and entry.learnt is None)
    return ratings if given else turned(ratings, project)


def digests(lake: Lake, project: Project) -> dict[str, str]:
    """Data versions of all ratings, by source."""
    records = {source: lake.tables.record(RATINGS, f"{RATINGS}/{source}") for source in project.document_sources}
    return {source: record.digest for source, record in records.items() if record is not None}


def versions(lake: Lake, project: Project, raters: tuple[str, ...]) -> dict[str, list[str]]:
    """Which versions of some raters have scored the project's documents."""
    rows = lake.tables.scan(RATINGS).filter(pl.col("source").is_in(list(project.document_sources)))
    columns = {name: pl.col(f"{name}_version").drop_nulls().unique().sort().implode() for name in raters}
    return dict(rows.select(**columns).collect().row(0, named=True))


def scale_of(lake: Lake, entry: Coordination, project: Project) -> Artifact:
    """What turns scores into the coordinated one: fitted once for its settings and its raters' versions, and kept."""
    weights = lake.artifacts.current(f"rater_weights/{entry.name}") if learns(entry) else None
    by = versions(lake, project, entry.raters)
    mark = fingerprint(code_version(*CODE), entry.model_dump(mode="json"), by, weights.digest if weights else None)

    def make(out: Path) -> tuple[str, dict[str, Any]]:
        learnt: Mapping[str, float] | None = weights.about["weights"] if weights else None
        ratings = ratings_of(lake, project)
        scale = fit(entry, as_meant(entry, ratings, project), lengths(lake, ratings), learnt)
        (out / "scale.json").write_text(json.dumps(scale))
        return fingerprint(scale), {"fitted on documents": len(ratings), "raters": by}

    inputs: dict[str, str | int] = {RATINGS: lake.tables.version(RATINGS)}
    if weights:
        inputs[f"rater_weights/{entry.name}"] = weights.fingerprint
    return lake.artifacts.build(f"coordination/{entry.name}", mark, make, inputs)[0]


def said(scale: Artifact) -> dict[str, Any]:
    """A scale as it was written down."""
    return dict(json.loads((scale.path / "scale.json").read_text()))


def fitted_on(scales: Mapping[str, Artifact]) -> dict[str, int]:
    """How many documents each scale was fitted on."""
    return {name: int(scale.about["fitted on documents"]) for name, scale in scales.items()}


def lengths(lake: Lake, ratings: pl.DataFrame) -> pl.Series:
    """Characters of each rated document: a percentile is one of text, not of documents."""
    texts = lake.tables.scan("clean_documents").select("id", "text_hash", characters=pl.col("text").str.len_chars())
    found = ratings.lazy().select("id", "text_hash").join(texts, on=["id", "text_hash"], how="left", maintain_order="left")
    return found.collect()["characters"].fill_null(0)


def rating_report(project: Project) -> dg.AssetsDefinition:
    """How far the raters agree, what each adds, and where each two differ most."""
    names = [rater.name for rater in project.raters]
    low = [rater.name for rater in project.raters if low_is_good(rater)]

    @dg.asset(
        key="rating_report",
        deps=[*([RATINGS, source] for source in project.document_sources), *([COORDINATED] if project.coordinated else [])],
        group_name=GROUP,
        kinds={"polars"},
        owners=OWNERS,
        code_version=code_version(*CODE),
        automation_condition=AUTOMATION,
        description="Agreement of "
        + ", ".join(names)
        + "; documents in each one's best tenth alone; the widest disagreements."
        + (f" Low is good for {', '.join(low)}, which counts turned round." if low else ""),
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        ratings = turned(ratings_of(lake, project), project)
        found = agreement(ratings, names)
        reported = whole(
            lake.tables,
            asset="rating_report",
            name="rating_report",
            base=fingerprint(code_version(*CODE), names),
            inputs={"table": fingerprint(found.correlation.to_dicts(), found.added.to_dicts())},
            reads={RATINGS: lake.tables.version(RATINGS)},
            source=None,
            work=lambda: (found.correlation.with_columns(source=pl.lit("all")), {}),
        )
        from midtrain_dagster.rate.plots import agreement as matrix

        more = {
            "agreement": plot(matrix(found.correlation, names)),
            "what each adds": markdown(found.added.rename({"top": "best tenth", "alone": "in no other's"}), len(names)),
            "widest disagreements": markdown(disagreements(lake, found.samples), 60),
        }
        if project.coordinated:
            both = ratings.join(lake.tables.read(COORDINATED).drop("text_hash"), on=["id", "source"])
            lost = [missed(both, entry.name, entry.raters) for entry in project.coordinated]
            more["what the coordinated best would miss without a rater"] = markdown(pl.concat(lost), 40)
        return of_table(context, lake.tables, "rating_report", reported, more)

    return asset


def disagreements(lake: Lake, samples: pl.DataFrame, each: int = 1) -> pl.DataFrame:
    """The documents on which each two raters differ most, who puts it where (0 lowest, 1 highest), and how it begins."""
    few = samples.group_by("one", "other", maintain_order=True).head(each)
    texts = lake.tables.scan("clean_documents").select("id", "source", begins=pl.col("text").str.slice(0, 160))
    told = texts.filter(pl.col("id").is_in(few["id"].unique().implode())).collect()
    named = {f"{one}_rank": pl.format("{} {}", one, pl.col(f"{one}_rank").round(2)) for one in ("one", "other")}
    rows = few.join(told, on="id", how="left").sort("gap", "one", "other", descending=[True, False, False])
    high = pl.col("one_rank") > pl.col("other_rank")
    return rows.select(
        praised=pl.when(high).then(named["one_rank"]).otherwise(named["other_rank"]),
        blamed=pl.when(high).then(named["other_rank"]).otherwise(named["one_rank"]),
        begins="begins",
        source="source",
        id="id",
    )


def rater_weights(entry: WeightedSum, project: Project) -> dg.AssetsDefinition:
    """Weights of raters that proxy runs speak for (Meta-rater). Learnt once for its settings and its raters' versions."""
    assert entry.learnt is not None
    learnt = entry.learnt

    @dg.asset(
        key=["rater_weights", entry.name],
        deps=[[table, source] for table in (RATINGS, "clean_documents") for source in project.document_sources],
        group_name=GROUP,
        kinds={"pytorch"},
        owners=OWNERS,
        pool=POOL,
        code_version=code_version("rate.coordinate", "mix", "train"),
        description=f"Weights of {', '.join(entry.over)} in `{entry.name}`, learnt from {learnt.runs} proxy runs (Meta-rater).",
    )
    @measured
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], gpu: dg.ResourceParam[Gpu]
    ) -> dg.MaterializeResult:
        mark = fingerprint(
            code_version("rate.coordinate", "mix", "train"),
            learnt.model_dump(mode="json"),
            versions(lake, project, entry.over),
            entry.edition,
        )

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            ratings = turned(ratings_of(lake, project), project)
            counted = progress(context, f"weights of {entry.name}", "runs", learnt.runs)
            found = weigh(lake, ratings, entry.over, learnt, out, gpu.threads, counted)
            return fingerprint(found), found

        read = {table: lake.tables.version(table) for table in (RATINGS, "clean_documents")}
        artifact, made = lake.artifacts.build(f"rater_weights/{entry.name}", mark, make, read)
        runs = pl.read_parquet(artifact.path / "runs.parquet").sort("loss")
        return of_artifact(context, artifact, made, {"runs, best first": markdown(runs, 40)})

    return asset


def assets(project: Project) -> list[dg.AssetsDefinition]:
    """Coordinated scores where the project has any, weights that they need, and the report where there are two raters."""
    found = [rater_weights(entry, project) for entry in project.coordinated if isinstance(entry, WeightedSum) and learns(entry)]
    found += [coordinated_ratings(project)] if project.coordinated else []
    return [*found, *([rating_report(project)] if len(project.raters) > 1 else [])]
