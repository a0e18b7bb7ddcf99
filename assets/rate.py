"""Rate: one asset trains each rater that learns from the project's documents, one asset a source applies them all."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Final

import dagster as dg
import duckdb
import polars as pl

import midtrain_dagster.rate
from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, of_artifact, of_table, plot, progress
from assets.reading import before, passing
from midtrain_dagster.code import code_version
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import Project
from midtrain_dagster.project.raters import DsirRater, EduRater, Examples, FastTextRater, QuRater
from midtrain_dagster.project.raters import Rater as RaterSettings
from midtrain_dagster.rate import dsir, fasttext
from midtrain_dagster.rate.journal import Journal
from midtrain_dagster.rate.make import make
from midtrain_dagster.rate.rate import Rater, merged, rate, unrated
from midtrain_dagster.rate.teach import head_of_scores, scale_of_choices
from midtrain_dagster.refresh import Frames, by_document, fingerprint
from midtrain_dagster.select.conditions import resolve
from midtrain_dagster.shards import Engine
from midtrain_dagster.synthesize.teacher import Parameters, Request, Teacher, ask
from midtrain_dagster.tables import database
from resources.embedder import Embedder
from resources.gpu import POOL, Gpu
from resources.lake import Lake
from resources.project_teacher import ProjectTeacher

GROUP: Final = "rate"
# What decides a rating: all of `rate` but how raters are brought together and shown. No document is rated anew for that.
ASIDE: Final = ("coordinate", "coordinated", "journal")
CODE: Final = code_version(*(f"rate.{m.name}" for m in iter_modules(midtrain_dagster.rate.__path__) if m.name not in ASIDE))
TABLE = "document_ratings"
LEARNT = {"edu": "head.safetensors", "qurater": "head.safetensors", "dsir": "weights.npy"}  # file of what a kind has learnt


def learns(rater: RaterSettings) -> bool:
    """Whether a rater is trained on the project's documents."""
    return isinstance(rater, QuRater | DsirRater) or (isinstance(rater, FastTextRater | EduRater) and rater.model is None)


def taught(rater: EduRater | QuRater, project: Project) -> dg.AssetsDefinition:
    """A head over the project's encoder that learns from the teacher. Trained once for its settings, as `trained`."""

    @dg.asset(
        key=["rater", rater.name],
        deps=[["clean_documents", source.name] for source in project.sources],
        group_name=GROUP,
        kinds={"pytorch"},
        owners=OWNERS,
        pool="teacher",
        code_version=CODE,
        description=f"Head `{rater.name}` on frozen embeddings, learnt from the teacher's "
        + ("scores, 0 to 5 (FineWeb-Edu)." if isinstance(rater, EduRater) else "choices in both orders (QuRating)."),
    )
    @measured
    def asset(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        teacher: dg.ResourceParam[ProjectTeacher],
        embedder: dg.ResourceParam[Embedder],
    ) -> dg.MaterializeResult:
        mark = fingerprint(CODE, rater.model_dump(mode="json"), teacher.version, embedder.version)

        def work(out: Path) -> tuple[str, dict[str, Any]]:
            most = rater.annotations if isinstance(rater, EduRater) else rater.pairs
            texts = examples(Examples(condition="true", most=most), lake, rater.training.seed)
            answered = asking(teacher.open(), f"rate/{rater.name}")
            if isinstance(rater, EduRater):
                learnt, asked = head_of_scores(texts, answered, embedder, rater.training)
                head, about = learnt.head, {"unanswered": asked.unanswered, **learnt.held_out._asdict()}
            else:
                scale, judgements = scale_of_choices(texts, rater, answered, embedder)
                judgements.write_parquet(out / "judgements.parquet")
                head, about = scale.head, {k: v for k, v in scale._asdict().items() if k != "head"}
            head.save(out / "head.safetensors")
            return head.version, about

        artifact, made = lake.artifacts.build(
            f"rater/{rater.name}", mark, work, {"clean_documents": lake.tables.version("clean_documents")}
        )
        return of_artifact(context, artifact, made, {})

    return asset


def asking(teacher: Teacher, account: str) -> Callable[[Sequence[str]], list[str | None]]:
    """A teacher as a function from prompts to replies; None for a reply with an error."""

    def asked(prompts: Sequence[str]) -> list[str | None]:
        requests = [Request(({"role": "user", "content": p},), Parameters(max_tokens=16), account) for p in prompts]
        return [None if reply.error else reply.text for reply in ask(teacher, requests)]

    return asked


def trained(rater: FastTextRater, project: Project) -> dg.AssetsDefinition:
    """A rater's model. It is trained once for its settings: new documents do not make a new rater, or all would be rated anew."""

    @dg.asset(
        key=["rater", rater.name],
        deps=[["clean_documents", source.name] for source in project.sources],
        group_name=GROUP,
        kinds={"fasttext"},
        owners=OWNERS,
        code_version=CODE,
        description=f"fastText classifier `{rater.name}`: what positives look like, against negatives. Kept until its settings change.",
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        mark = fingerprint(CODE, rater.model_dump(mode="json"))

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


def weighted(rater: DsirRater, project: Project) -> dg.AssetsDefinition:
    """DSIR's importance weights. Fitted once for its settings, as `trained`: a growing `raw` would rate every document anew."""

    @dg.asset(
        key=["rater", rater.name],
        deps=[["clean_documents", source.name] for source in project.sources],
        group_name=GROUP,
        kinds={"numpy"},
        owners=OWNERS,
        code_version=CODE,
        description=f"Importance weights `{rater.name}` of hashed n-grams: target against raw (DSIR). Kept until its settings change.",
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        mark = fingerprint(CODE, rater.model_dump(mode="json"))

        def work(out: Path) -> tuple[str, dict[str, Any]]:
            target, raw = (examples(side, lake, 0) for side in (rater.target, rater.raw))
            found = dsir.fit(rater.name, target, raw, rater.buckets, rater.min_words)
            found.save(out / "weights.npy")
            return found.version, {"target documents": len(target), "raw documents": len(raw)}

        read = {"clean_documents": lake.tables.version("clean_documents")}
        artifact, made = lake.artifacts.build(f"rater/{rater.name}", mark, work, read)
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


def has_model(rater: RaterSettings) -> bool:
    """Whether a rater is a model that runs on an accelerator where there is one."""
    return not isinstance(rater, FastTextRater | DsirRater)


def opened(project: Project, lake: Lake, embedder: Embedder, gpu: Gpu) -> list[Rater]:
    """The project's raters, ready to score; models on this machine's accelerator where it has one."""
    device = gpu.device if any(has_model(rater) for rater in project.raters) else "cpu"
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
            learnt = lake.artifacts.current(f"rater/{rater.name}").path / LEARNT[rater.kind] if learns(rater) else None
            found.append(make(located(rater, lake.root), None, embedder, learnt, device))
    return found


def located(rater: RaterSettings, root: Path) -> RaterSettings:
    """A model that is a directory of the project stands below its root; every other name is the hub's."""
    model = getattr(rater, "model", None)
    return rater.model_copy(update={"model": str(root / model)}) if model and (root / model).is_dir() else rater


OPENED: dict[tuple[str, str], Rater] = {}  # of this process, by name and version: a model is loaded once a machine


def scored(
    project: Project, lake: Lake, embedder: Embedder, gpu: Gpu, name: str, version: str, documents: pl.DataFrame
) -> pl.DataFrame:
    """One rater's ratings of a shard, on whichever machine this runs."""
    if (name, version) not in OPENED:
        OPENED[name, version] = next(rater for rater in opened(project, lake, embedder, gpu) if rater.name == name)
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
        raters = opened(project, lake, embedder, gpu)
        journal = Journal(lake.cache_path("ratings") / source)

        @cache
        def stored() -> pl.DataFrame | None:
            """What was rated before: read once, however many pieces the source has."""
            there = lake.tables.record(TABLE, context.asset_key.to_user_string())
            return lake.tables.read(TABLE, source).drop("source") if there else None

        def work(new: pl.DataFrame) -> tuple[Frames, dict[str, object]]:
            """Rate what no rater of this version has rated: a new rater does not cost the old ones' work again."""
            old = stored()
            ratings = (old if old is not None else rate(new.clear(), raters)).join(
                new.select("id", "text_hash"), on=["id", "text_hash"], how="semi"
            )
            for rater in raters:
                parts = [rate(new.clear(), [rater]), *journal.read(rater, new)]
                ratings = merged(ratings, pl.concat(parts))
                todo = unrated(new, ratings, rater)
                counted = progress(context, f"rate {source} by {rater.name}", "documents", len(todo))
                score = partial(scored, project, lake, embedder, gpu, rater.name, rater.version)
                for part in engine.map(score, todo.select("id", "text", "text_hash").iter_slices(project.compute.shard)):
                    journal.write(rater, part)
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
            base=fingerprint(CODE, {rater.name: rater.version for rater in raters}),
            work=work,
            passing=passing(lake, project.curation, GROUP, source, method),
        )
        journal.clear()
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
    heads = [taught(rater, project) for rater in project.raters if isinstance(rater, EduRater | QuRater) and learns(rater)]
    weights = [weighted(rater, project) for rater in project.raters if isinstance(rater, DsirRater)]
    ratings = [document_ratings(source, project, method) for source in project.document_sources]
    return [*models, *heads, *weights, *ratings]


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

    learning = [rater for rater in project.raters if learns(rater)]
    return [
        *(better_than_chance(rater) for rater in learning if isinstance(rater, FastTextRater)),
        *(agrees_with_teacher(rater) for rater in learning if isinstance(rater, EduRater | QuRater)),
    ]
