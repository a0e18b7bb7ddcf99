"""Decontaminate: evidence for each document and benchmark question. The recipe's threshold decides, at selection."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import dagster as dg
import polars as pl

from assets.judging import Judging, demand_teacher
from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, markdown, of_table, progress
from assets.reading import allow_list, before, passing
from midtrain_dagster.code import code_version
from midtrain_dagster.decontaminate import behaviour, review
from midtrain_dagster.decontaminate.added import follow_questions
from midtrain_dagster.decontaminate.allow_list import read_allow_list
from midtrain_dagster.decontaminate.decide import decisive
from midtrain_dagster.decontaminate.index import Index, build
from midtrain_dagster.decontaminate.match import MATCHES_SCHEMA, match
from midtrain_dagster.decontaminate.questions import QUESTIONS_SCHEMA, read_questions
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.benchmarks import Benchmark
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.decontamination import Decontamination
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.refresh import Frames, Refreshed, by_document, fingerprint, whole
from midtrain_dagster.shards import Engine
from resources.embedder import Embedder
from resources.lake import Lake
from resources.project_teacher import ProjectTeacher

GROUP: Final = "decontaminate"
QUESTIONS = "benchmark_questions"
MATCHES = "contamination_matches"
EVIDENCE_ROWS = 500  # shown: some six for each benchmark and source
LOOKED_AT = "scanned_documents"  # id and text_hash of each document that was looked at: most have no match


def benchmark_questions(project: Project, deps: list[dg.AssetKey]) -> dg.AssetsDefinition:
    """The questions of every benchmark of the project, in one layout."""

    @dg.asset(
        key=QUESTIONS,
        deps=deps,
        group_name=GROUP,
        kinds={"polars", "deltalake"},
        owners=OWNERS,
        code_version=code_version("decontaminate"),
        automation_condition=AUTOMATION,
        description="Questions that no recipe may train on: " + ", ".join(b.name for b in project.benchmarks),
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        read = [(benchmark, questions_of(benchmark, lake.root)) for benchmark in project.benchmarks]
        none = pl.DataFrame(schema={**QUESTIONS_SCHEMA, "source": pl.String})
        rows = pl.concat([none, *(questions.with_columns(source=pl.lit(b.name)) for b, questions in read)])

        def work() -> tuple[pl.DataFrame, dict[str, object]]:
            return rows, {"questions": dict(rows.group_by("benchmark").len().sort("benchmark").iter_rows())}

        refreshed = whole(
            lake.tables,
            asset=QUESTIONS,
            name=QUESTIONS,
            base=code_version("decontaminate"),
            inputs={"questions": fingerprint(rows["question_id"].sort().to_list())},
            reads={},
            source=None,
            work=work,
        )
        return of_table(context, lake.tables, QUESTIONS, refreshed)

    return asset


def questions_of(benchmark: Benchmark, root: Path) -> pl.DataFrame:
    """A benchmark's rows from its files, or from the hub."""
    if benchmark.path is not None:
        return read_questions([root / benchmark.path], benchmark.mapping or None)
    from datasets import load_dataset

    from midtrain_dagster.decontaminate.questions import of_rows

    try:
        rows = load_dataset(benchmark.hub, benchmark.subset, split=benchmark.split)
    except Exception as error:
        raise MidtrainError(
            f"benchmark {benchmark.name}: {benchmark.hub} cannot be had from the hub ({error}); give a `path` instead"
        ) from None
    return of_rows(benchmark.name, rows, benchmark.mapping or None)


def contamination_matches(source: str, project: Project, settings: Decontamination, threshold: float) -> dg.AssetsDefinition:
    """Matches of one source's documents with the questions; with a judge, who decides about `threshold`, the asset has the teacher."""
    about: dict[str, Any] = {
        "key": [MATCHES, source],
        "deps": [
            ["clean_documents", source],
            QUESTIONS,
            *before(project.curation, GROUP, source, project.document_sources, bool(project.raters)),
        ],
        "group_name": GROUP,
        "kinds": {"numba", "deltalake"},
        "owners": OWNERS,
        "code_version": code_version("decontaminate"),
        "automation_condition": AUTOMATION,
        "tags": {"midtrain/source": source},
        "description": f"Every pair of a document of `{source}` and a benchmark question that may be a copy, with its evidence.",
    }

    def made(
        context: dg.AssetExecutionContext, lake: Lake, embedder: Embedder, engine: Engine, judging: Judging | None
    ) -> dg.MaterializeResult:
        isolation = behaviour.runs_in(settings)
        means = fingerprint(embedder.version, isolation is not None, judging.version if judging else "")
        look = partial(looked_for, context, source, embedder, isolation is not None, engine, project.compute.shard, judging)
        refreshed = gathered(lake, source, project, settings, means, look)
        more = {"strongest evidence": strongest(lake, source), "functions run in": functions_run_in(settings, isolation)}
        return of_table(context, lake.tables, MATCHES, refreshed, {**more, **(judging.told() if judging else {})})

    judge = settings.judge
    if judge is None:

        @dg.asset(**about)
        @measured
        def asset(
            context: dg.AssetExecutionContext,
            lake: dg.ResourceParam[Lake],
            embedder: dg.ResourceParam[Embedder],
            engine: dg.ResourceParam[Engine],
        ) -> dg.MaterializeResult:
            return made(context, lake, embedder, engine, None)

        return asset

    @dg.asset(**about, pool="teacher")
    @measured
    def judged(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        embedder: dg.ResourceParam[Embedder],
        engine: dg.ResourceParam[Engine],
        teacher: dg.ResourceParam[ProjectTeacher],
    ) -> dg.MaterializeResult:
        return made(context, lake, embedder, engine, Judging(context, source, teacher, judge, threshold))

    return judged


def gathered(
    lake: Lake,
    source: str,
    project: Project,
    settings: Decontamination,
    means: str,
    look: Callable[[pl.DataFrame, Index | None], pl.DataFrame],
) -> Refreshed:
    """Bring the matches of a source up to date: with documents that are new, and with questions that came or went. `means`
    stands for what `look` has on this machine: its encoder, its judge, and whether it can run functions."""
    tables, name = lake.tables, f"{MATCHES}/{source}"
    questions, asked = tables.read(QUESTIONS), tables.version(QUESTIONS)
    exceptions = allow_list(lake, settings)
    base = fingerprint(
        code_version("decontaminate"),
        settings.evidence(),
        sorted(read_allow_list(exceptions).phrases),  # its documents and pairs are each recipe's decision
        means,
    )
    allowing = settings.using(allow_list=exceptions)

    @cache  # the documents come in pieces
    def index() -> Index | None:
        return build(questions, allowing) if len(questions) else None

    def work(new: pl.DataFrame) -> tuple[Frames, dict[str, object]]:
        found = look(new, index())
        seen = new.select("id", "text_hash")
        return {MATCHES: found, LOOKED_AT: seen}, {"scanned": len(new), "documents with evidence": found["id"].n_unique()}

    followed = follow_questions(
        tables,
        asset=name,
        source=source,
        base=base,
        reads="clean_documents",
        matches=MATCHES,
        scanned=LOOKED_AT,
        questions=QUESTIONS,
        settings=allowing,
        look=look,
    )
    refreshed = by_document(
        tables,
        asset=name,
        reads="clean_documents",
        writes=(MATCHES, LOOKED_AT),
        source=source,
        base=base,
        work=work,
        passing=passing(lake, project.curation, GROUP, source, settings.method),
        seen_by=LOOKED_AT,
        besides={QUESTIONS: asked},
        again=followed is None,
    )
    return refreshed._replace(changed=refreshed.changed or bool(followed))


def looked_for(
    context: dg.AssetExecutionContext,
    source: str,
    embedder: Embedder,
    isolates: bool,
    engine: Engine,
    shard: int,
    judging: Judging | None,
    documents: pl.DataFrame,
    index: Index | None,
) -> pl.DataFrame:
    """Matches of documents with questions, shard by shard, and here the judge's word on them; none where the project has no
    benchmark."""
    if index is None:
        return pl.DataFrame(schema=MATCHES_SCHEMA)
    counted = progress(context, f"decontaminate {source}", "documents", len(documents))
    look = partial(matched, index, embedder, isolates)
    parts = [match(documents.clear(), index, encoder=embedder)]
    for number, part in enumerate(engine.map(look, documents.select("id", "text", "text_hash").iter_slices(shard))):
        parts.append(part)
        counted.advance(min(shard, len(documents) - number * shard))
    found = pl.concat(parts).sort("id", "question_id", "start", "question_part")
    return judging.over(found, documents, index.questions) if judging else found


def matched(index: Index, embedder: Embedder, isolates: bool, documents: pl.DataFrame) -> pl.DataFrame:
    """Matches of a shard, on whichever machine this runs; MidtrainError where it can run functions and others cannot, or not."""
    if (behaviour.runs_in(index.settings) is not None) != isolates:
        raise MidtrainError(
            "decontaminate: some machines of this run isolate functions and some do not, so that evidence would hang on where a "
            "document was looked at; install bubblewrap on all, or set decontamination.run_functions to false"
        )
    return match(documents, index, encoder=embedder)


def functions_run_in(settings: Decontamination, isolation: str | None) -> str:
    """What isolates functions that are run beside a question's solution, or why none are."""
    if settings.method != "cascade" or not settings.run_functions:
        return "not run, as the recipe has it"
    return isolation or f"not run: {behaviour.NOT_ISOLATED}"


def strongest(lake: Lake, source: str | None = None, number: int = 6) -> dg.MetadataValue:
    """The best matches side by side: what the document says, what the question says."""
    matches = (
        lake.tables.scan(MATCHES, source)
        .sort("score", "id", "question_id", descending=[True, False, False])
        .head(number)
        .collect()
    )
    questions = lake.tables.read(QUESTIONS).select("question_id", "question")
    texts = (
        lake.tables.scan("clean_documents")
        .select("id", "text")
        .filter(pl.col("id").is_in(matches["id"].unique().implode()))
        .collect()
    )
    shown = (
        matches.join(questions, on="question_id", how="left").join(texts, on="id", how="left").sort("score", descending=True)
    )
    said = pl.struct("text", "start", "end").map_elements(
        lambda m: (m["text"] or "")[m["start"] : m["end"]], return_dtype=pl.String
    )
    return markdown(shown.select("score", "benchmark", document=said, question=pl.col("question").str.slice(0, 400)))


def contamination_report(project: Project, recipes: list[Recipe], settings: Decontamination) -> dg.AssetsDefinition:
    """Which benchmarks are touched, by how many documents of which source, on what evidence; and pairs to judge it by."""
    names = list(project.document_sources)
    threshold = deciding(recipes, settings)

    @dg.asset(
        key="contamination_report",
        deps=[QUESTIONS, *([MATCHES, name] for name in names)],
        group_name=GROUP,
        kinds={"polars"},
        owners=OWNERS,
        code_version=code_version("decontaminate.review"),
        automation_condition=AUTOMATION,
        description="Per benchmark: how many questions are touched, by how many documents of which source, on what evidence.",
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        questions = lake.tables.read(QUESTIONS)
        matches = lake.tables.read(MATCHES).filter(pl.col("source").is_in(names), pl.col("method") == settings.method)
        table = review.touched(questions, matches, threshold)
        reported = whole(
            lake.tables,
            asset="contamination_report",
            name="contamination_report",
            base=fingerprint(code_version("decontaminate.review"), threshold),
            inputs={"table": fingerprint(table.to_dicts())},
            reads={MATCHES: lake.tables.version(MATCHES), QUESTIONS: lake.tables.version(QUESTIONS)},
            source=None,
            work=lambda: (table.with_columns(source=pl.lit("all")), {}),
        )
        more = {
            "by benchmark and source": markdown(review.narrow(table), len(table)),
            "by evidence": markdown(review.narrow(review.by_evidence(matches, threshold)), EVIDENCE_ROWS),
            "by level of score": markdown(review.by_level(matches, threshold)),
            "what recipes do": markdown(done(lake, recipes, matches)),
            **side_by_side(lake, questions, matches),
        }
        return of_table(context, lake.tables, "contamination_report", reported, more)

    return asset


def side_by_side(lake: Lake, questions: pl.DataFrame, matches: pl.DataFrame) -> dict[str, dg.MetadataValue]:
    """A few pairs of question and passage for each level of score, words in common in bold."""
    chosen = review.samples(matches)
    texts = lake.tables.scan("clean_documents").select("id", "text")
    pairs = review.aligned(chosen, questions, texts.filter(pl.col("id").is_in(chosen["id"].unique().implode())).collect())
    return {f"pairs at {foot:.1f}": markdown(some.drop("level"), characters=1000) for (foot,), some in levels(pairs)}


def levels(pairs: pl.DataFrame) -> list[tuple[tuple[float], pl.DataFrame]]:
    """Pairs apart by their level, highest first."""
    return list(pairs.group_by("level", maintain_order=True)) if len(pairs) else []


def done(lake: Lake, recipes: list[Recipe], matches: pl.DataFrame) -> pl.DataFrame:
    """What each recipe makes of the evidence: its threshold and action, documents that count, documents taken back."""
    rows = []
    for recipe in recipes:
        settings, score = recipe.decontamination, recipe.contamination_score
        near = matches.filter((pl.col("score") >= score) & (pl.col("method") == settings.method))
        counting = decisive(near, settings.using(threshold=score, allow_list=allow_list(lake, settings)))["id"].n_unique()
        about = {"recipe": recipe.name, "method": settings.method, "threshold": score, "action": settings.action}
        rows.append({**about, "contaminated": counting, "allowed": near["id"].n_unique() - counting})
    return pl.DataFrame(rows, infer_schema_length=None)


def assets(project: Project, recipes: list[Recipe], deps: list[dg.AssetKey]) -> list[dg.AssetsDefinition]:
    """Questions, matches of each source, report. Evidence is gathered once for all recipes; thresholds are each recipe's."""
    settings = gathering(recipes)
    demand_teacher(project, settings, recipes)
    threshold = deciding(recipes, settings)
    return [
        benchmark_questions(project, deps),
        *(contamination_matches(source, project, settings, threshold) for source in project.document_sources),
        contamination_report(project, recipes, settings),
    ]


def deciding(recipes: list[Recipe], settings: Decontamination) -> float:
    """The score from which on a match counts, for the report and for a judge: the first recipe's."""
    return recipes[0].contamination_score if recipes else settings.threshold


def gathering(recipes: list[Recipe]) -> Decontamination:
    """How evidence is gathered for some recipes: as the first one says. MidtrainError where that would not serve another."""
    if not recipes:
        return Decontamination()
    first = recipes[0].decontamination
    for other in recipes[1:]:
        own = other.decontamination
        if (own.method, own.ngram_rule, own.qwen_rule) != (first.method, first.ngram_rule, first.qwen_rule):
            problem = f"one matches by {first.method}, the other by {own.method}, or by another rule of it"
        elif other.contamination_score < first.floor - 1e-9:
            problem = f"the first keeps no match under {first.floor:g}, the other's threshold is {other.contamination_score:g}"
        elif own.judge != first.judge:
            problem = "they ask a judge about other matches, or one of them asks none"
        elif first.judge is not None and other.contamination_score != recipes[0].contamination_score:
            problem = (
                f"the judge decides about a threshold, of the first {recipes[0].contamination_score:g}, "
                f"of the other {other.contamination_score:g}"
            )
        else:
            continue
        raise MidtrainError(
            f"recipes {recipes[0].name} and {other.name} cannot share a project's evidence of contamination: {problem}; "
            "give them the same decontamination.method and judge and a keep_above that serves both, or a project each"
        )
    return first
