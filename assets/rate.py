"""Rate: one asset a source applies every rater of the project to its documents."""

from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Final

import dagster as dg
import polars as pl

import midtrain_dagster.rate
from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, of_table, plot, progress
from assets.reading import before, passing
from midtrain_dagster.code import code_version
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import Project
from midtrain_dagster.project.raters import DsirRater, FastTextRater, PerplexityRater, learns
from midtrain_dagster.project.raters import Rater as RaterSettings
from midtrain_dagster.rate.journal import completed, journal_of
from midtrain_dagster.rate.learn import FILE
from midtrain_dagster.rate.make import make
from midtrain_dagster.rate.rate import Rater, rate
from midtrain_dagster.refresh import by_document, fingerprint
from midtrain_dagster.shards import Engine
from resources.embedder import Embedder
from resources.gpu import POOL, Gpu
from resources.lake import Lake
from resources.packaged import PACKAGED, packaged_model

GROUP: Final = "rate"
# What decides a rating: all of `rate` but how raters are taught, brought together and shown. No document is rated anew for that.
ASIDE: Final = ("coordinate", "coordinated", "edu", "held_out", "journal", "learn", "plots", "teach")
CODE: Final = code_version(*(f"rate.{m.name}" for m in iter_modules(midtrain_dagster.rate.__path__) if m.name not in ASIDE))
TABLE = "document_ratings"


def has_model(rater: RaterSettings) -> bool:
    """Whether a rater is a model that runs on an accelerator where there is one."""
    return not isinstance(rater, FastTextRater | DsirRater)


OPENED: dict[str, tuple[str, Rater]] = {}  # of this process, by name: what each was made from, and the rater


def opened(rater: RaterSettings, lake: Lake, embedder: Embedder, gpu: Gpu) -> Rater:
    """A rater of the project, ready to score; a model is loaded once a process, on this machine's accelerator where it has one."""
    learnt = lake.artifacts.current(f"rater/{rater.name}").path / FILE[rater.kind] if learns(rater) else None
    settings = located(rater, lake)
    made_from = fingerprint(settings.model_dump(mode="json"), learnt, stamps(settings), embedder.version)
    if OPENED.get(rater.name, ("",))[0] != made_from:
        device = gpu.device if has_model(rater) else "cpu"
        OPENED[rater.name] = made_from, make(settings, embedder, learnt, device)
    return OPENED[rater.name][1]


def stamps(rater: RaterSettings) -> list[tuple[str, int, int]]:
    """Name, size and time of a model's files, where they are on this machine."""
    model = getattr(rater, "model", None)
    if model is None:
        return []
    place = Path(model)
    files = sorted(place.iterdir()) if place.is_dir() else [place] if place.is_file() else []
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def located(rater: RaterSettings, lake: Lake) -> RaterSettings:
    """Where its model is: a file or directory below the project's root, the language model that comes as a package, or the hub."""
    model: Any = getattr(rater, "model", None)
    if isinstance(rater, PerplexityRater) and model == PACKAGED:
        return rater.model_copy(update={"model": str(packaged_model(lake))})
    there = model and (lake.root / model).exists()
    return rater.model_copy(update={"model": type(model)(lake.root / model)}) if there else rater


def scored(
    wanted: Sequence[tuple[RaterSettings, str]], lake: Lake, embedder: Embedder, gpu: Gpu, documents: pl.DataFrame
) -> pl.DataFrame:
    """Ratings of a shard by some raters of these versions, on whichever machine this runs."""
    raters = [opened(settings, lake, embedder, gpu) for settings, _ in wanted]
    for rater, (_, version) in zip(raters, wanted, strict=True):
        if rater.version != version:
            raise MidtrainError(f"rater {rater.name}: this machine has version {rater.version}, wanted is {version}")
    return rate(documents, raters)


def in_shards(
    context: dg.AssetExecutionContext,
    source: str,
    project: Project,
    engine: Engine,
    needs: tuple[Lake, Embedder, Gpu],
    some: Sequence[Rater],
    documents: pl.DataFrame,
) -> Iterator[pl.DataFrame]:
    """Ratings of documents by some of the project's raters, shard by shard, wherever the engine is."""
    versions = {rater.name: rater.version for rater in some}
    wanted = [(entry, versions[entry.name]) for entry in project.raters if entry.name in versions]
    counted = progress(context, f"rate {source} by {', '.join(versions)}", "documents", len(documents))
    shards = documents.select("id", "text", "text_hash").iter_slices(project.compute.shard)
    for part in engine.map(partial(scored, wanted, *needs), shards):
        counted.advance(len(part))
        yield part


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
        pool=POOL if any(has_model(rater) for rater in project.raters) else None,
        code_version=CODE,
        automation_condition=AUTOMATION,
        tags={"midtrain/source": source},
        description=f"Scores of `{source}` by "
        + ", ".join(r.name for r in project.raters)
        + "; one column a rater, with its version.",
    )
    @measured
    def asset(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        engine: dg.ResourceParam[Engine],
        embedder: dg.ResourceParam[Embedder],
        gpu: dg.ResourceParam[Gpu],
    ) -> dg.MaterializeResult:
        raters = {entry.name: opened(entry, lake, embedder, gpu) for entry in project.raters}
        score = partial(in_shards, context, source, project, engine, (lake, embedder, gpu))

        @cache
        def stored() -> pl.DataFrame | None:
            """What was rated before: read once, however many pieces the source has."""
            there = lake.tables.record(TABLE, context.asset_key.to_user_string())
            return lake.tables.read(TABLE, source).drop("source") if there else None

        with journal_of(lake.cache_path("ratings") / source, context.log.info) as journal:
            refreshed = by_document(
                lake.tables,
                asset=context.asset_key.to_user_string(),
                reads="clean_documents",
                writes=(TABLE,),
                source=source,
                base=fingerprint(CODE, {name: rater.version for name, rater in raters.items()}),
                work=lambda new: ({TABLE: completed(new, stored(), list(raters.values()), journal, score)}, {}),
                passing=passing(lake, project.curation, GROUP, source, method),
            )
        from midtrain_dagster.rate.plots import scores

        shown = scores(lake.tables.read(TABLE, source), list(raters))
        return of_table(context, lake.tables, TABLE, refreshed, {"scores": plot(shown)})

    return asset


def assets(project: Project, method: str) -> list[dg.AssetsDefinition]:
    """Ratings of each source; nothing where the project has no raters."""
    return [document_ratings(source, project, method) for source in project.document_sources] if project.raters else []
