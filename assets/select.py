"""Select: which documents each recipe trains on. One DuckDB query over the attributes; every row that is left out says why."""

import dagster as dg
import polars as pl

from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, bars, markdown, of_table
from assets.reading import (
    ATTRIBUTES,
    COORDINATED,
    CUTS,
    HELD_OUT,
    allow_list,
    cuts_of,
    decisive_matches,
    relations,
    selection_digest,
)
from midtrain_dagster.amend import Amendment, amended
from midtrain_dagster.clean.rules import as_rules
from midtrain_dagster.code import code_version
from midtrain_dagster.decontaminate.allow_list import AllowList, read_allow_list
from midtrain_dagster.decontaminate.cutting import CUTS_SCHEMA, NOTHING_REPEATED, cuts
from midtrain_dagster.decontaminate.match import MATCHES_SCHEMA
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.recipes.selection import Contamination, Passage, Rule, Selection
from midtrain_dagster.refresh import Refreshed, fingerprint, whole
from midtrain_dagster.select.funnel import funnel
from midtrain_dagster.select.select import select
from midtrain_dagster.tables import Record, Tables, session
from resources.lake import Lake

GROUP = "select"
TABLE = "selected_documents"
REPEATED = "repeated_text"


def selection_of(recipe: Recipe) -> Selection:
    """The recipe's selection, with its contamination threshold and the held-out documents as its last rule.

    Whole duplicate clusters are held out, so that no near copy of a held-out document is trained on. A document of which cutting
    leaves nothing is left out.
    """
    nothing_left = Rule(name="repeated text", keep="document.characters > 0")
    held_out = Rule(
        name=HELD_OUT,
        keep=f"md5_number_lower(coalesce(cluster.near, document.id)) % {recipe.held_out.one_in} <> 0",
    )
    return recipe.selection.model_copy(
        update={
            "contamination": Contamination(score=recipe.contamination_score),
            "rules": (*((nothing_left,) if repeated_cut(recipe) else ()), *recipe.selection.rules, held_out),
        }
    )


def selected_documents(recipe: Recipe, project: Project) -> dg.AssetsDefinition:
    """The fate of every document under one recipe."""
    names = list(project.document_sources)

    @dg.asset(
        key=[TABLE, recipe.name],
        deps=[
            *(["clean_documents", name] for name in names),
            "duplicate_clusters",
            *(["repeated_text", name] for name in names if project.deduplication.repeated),
            *(["semantic_clusters"] if project.deduplication.semantic_clusters else []),
            *(["document_ratings", name] for name in names if project.raters),
            *([COORDINATED] if project.coordinated else []),
            *(["contamination_matches", name] for name in names),
        ],
        group_name=GROUP,
        kinds={"duckdb", "deltalake"},
        owners=OWNERS,
        code_version=code_version("select"),
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=f"Which documents recipe `{recipe.name}` trains on, and why the others are left out.",
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        table = f"{TABLE}/{recipe.name}"
        refreshed = fates(lake, recipe, project, names)
        left = funnel(lake.tables.read(table)).with_columns(pl.col("rule").fill_null("kept"))
        left = left.select(column for column in left if column.null_count() < len(left) or column.name == "characters")
        cut = cuts_of(lake, recipe.name).select("id", "source", "reason", "benchmark", "start", "end", "left")
        shown = {
            "kept and left out": bars(left, "characters", "source", 60),
            "cut out": markdown(cut, 60),
            "examples of dropped documents": markdown(examples(lake, recipe.name), 90),
        }
        return of_table(context, lake.tables, table, refreshed, shown)

    return asset


def fates(lake: Lake, recipe: Recipe, project: Project, names: list[str]) -> Refreshed:
    """Bring a recipe's selection from the sources `names` up to date, after the spans that it cuts."""
    tables, settings, table = lake.tables, recipe.decontamination, f"{TABLE}/{recipe.name}"
    selection = selection_of(recipe)
    allowed = read_allow_list(allow_list(lake, settings))
    taken = cut_spans(lake, recipe, names, exceptions(allowed))
    measured_by = [name for name in ATTRIBUTES if name != COORDINATED or project.coordinated]
    present = [name for name in ("clean_documents", *measured_by) if tables.exists(name)]

    def work() -> tuple[pl.DataFrame, dict[str, object]]:
        with session() as con:
            relations(con, tables, names, settings.method, allowed, cuts_of(lake, recipe.name), bool(project.coordinated))
            chosen = select(con, selection, recipe.seed, as_rules())
        kept = chosen.documents.filter(pl.col("kept"))
        return chosen.documents, {
            "documents": len(chosen.documents),
            "kept": len(kept),
            "kept characters": int(kept["characters"].sum()),
            "allow-list": exceptions(allowed),
            "query": chosen.query,
        }

    def amend(last: Record) -> Amendment:
        rows, about = work()
        return Amendment(rows, tables.scan(table).select("id").collect()["id"], about)

    refreshed = amended(
        tables,
        asset=table,
        name=table,
        base=fingerprint(
            code_version("select"),
            selection.model_dump(mode="json"),
            recipe.seed,
            settings.method,
            exceptions(allowed),
            taken.digest if taken else None,
        ),
        inputs={f"{name}/{source}": digest_of(tables, name, source) for name in present for source in names},
        reads={name: tables.version(name) for name in (*present, *([f"{CUTS}/{recipe.name}"] if taken else []))},
        amend=amend,
        work=work,
    )
    return refreshed._replace(digest=selection_digest(lake, recipe.name))


def exceptions(allowed: AllowList) -> list[str]:
    """What an allow-list takes back once the evidence is there: documents and pairs. Its phrases act on the evidence itself."""
    return sorted([*allowed.documents, *("\t".join(pair) for pair in allowed.pairs)])


def repeated_cut(recipe: Recipe) -> tuple[Passage, ...]:
    """Which repeated passages a recipe cuts."""
    return recipe.selection.deduplication.cut if recipe.selection.deduplication else ()


def cut_spans(lake: Lake, recipe: Recipe, names: list[str], excepted: list[str]) -> Refreshed | None:
    """Write what the recipe cuts out of documents; None where it cuts nothing and never did."""
    tables, settings, table = lake.tables, recipe.decontamination, f"{CUTS}/{recipe.name}"
    passages = repeated_cut(recipe)
    if settings.action == "drop" and not passages and not tables.exists(table):
        return None
    if passages and not tables.exists(REPEATED):
        raise MidtrainError(
            f"recipe {recipe.name} cuts repeated {' and '.join(passages)}, which were not looked for: "
            "say `deduplication: {repeated: true}` in the project file and materialize repeated_text"
        )

    def work() -> tuple[pl.DataFrame, dict[str, object]]:
        hits = decisive_matches(lake, recipe) if settings.action == "cut" else pl.DataFrame(schema=MATCHES_SCHEMA)
        found = pl.concat([CUTS_SCHEMA.to_frame(), *(of_source(source, hits) for source in names)]).sort("id", "start")
        removed = int((found["end"] - found["start"]).sum())
        return found, {"contaminated": hits["id"].n_unique(), "cut": found["id"].n_unique(), "characters cut": removed}

    def of_source(source: str, hits: pl.DataFrame) -> pl.DataFrame:
        repeated = repeated_spans(tables, source, passages)
        wanted = pl.concat([frame.select("id", "text_hash") for frame in (hits, repeated)]).unique()
        texts = tables.pieces("clean_documents", source)._replace(wanted=wanted)
        found = [cuts(piece, hits, settings.cutting, repeated) for piece in texts.read()]
        return pl.concat([CUTS_SCHEMA.to_frame(), *found])

    read = ("clean_documents", "contamination_matches", *((REPEATED,) if passages else ()))
    return whole(
        tables,
        asset=table,
        name=table,
        base=fingerprint(
            code_version("decontaminate.cutting", "decontaminate.decide"),
            settings.action,
            settings.cutting.model_dump(),
            settings.method,
            recipe.contamination_score,
            excepted,
            passages,
        ),
        inputs={f"{name}/{source}": digest_of(tables, name, source) for name in read for source in names},
        reads={name: tables.version(name) for name in read},
        source=None,
        work=work,
    )


def repeated_spans(tables: Tables, source: str, passages: tuple[Passage, ...]) -> pl.DataFrame:
    """REPEATED_SCHEMA of a source's documents that are no code: where the passages are that a recipe cuts."""
    if not passages:
        return NOTHING_REPEATED
    prose = tables.scan("clean_documents", source).filter(pl.col("format") != "code").select("id", "text_hash")
    spans = pl.concat_list(f"{passage.removesuffix('s')}_spans" for passage in passages)
    found = tables.scan(REPEATED, source).select("id", "text_hash", spans=spans).filter(pl.col("spans").list.len() > 0)
    return found.join(prose, on=["id", "text_hash"], how="semi").collect()


def examples(lake: Lake, recipe: str, each: int = 2) -> pl.DataFrame:
    """A few documents that each rule left out of each source, and how they begin: is the rule right?"""
    left = lake.tables.scan(f"{TABLE}/{recipe}").filter(~pl.col("kept")).select("id", "source", rule="reason")
    few = left.sort("id").group_by("source", "rule", maintain_order=True).head(each).collect()
    texts = (
        lake.tables.scan("clean_documents")
        .select("id", "source", "url", "text")
        .filter(pl.col("id").is_in(few["id"].implode()))
    )
    shown = few.join(texts.collect(), on=["id", "source"], how="left").sort("source", "rule", "id")
    return shown.select("source", "rule", pl.col("text").str.slice(0, 200).alias("begins"), "id", "url")


def digest_of(tables: Tables, table: str, source: str) -> str:
    """Digest of what a table holds of a source, or of all sources where it is made as a whole."""
    asset = table if table in ACROSS else f"{BESIDE.get(table, table)}/{source}"
    record = tables.record(table, asset)
    return record.digest if record else ""


# Tables of all sources together, each by one asset.
ACROSS = ("duplicate_clusters", "semantic_clusters", COORDINATED)
# Tables that another asset writes beside its own.
BESIDE = {"quality_signals": "clean_documents", "sensitive_spans": "clean_documents"}


def assets(project: Project, recipes: list[Recipe]) -> list[dg.AssetsDefinition]:
    """One asset for each recipe."""
    return [selected_documents(recipe, project) for recipe in recipes]
