"""What more than one stage's assets read from the lake."""

from pathlib import Path

import duckdb
import polars as pl

from midtrain_dagster.decontaminate.allow_list import NOTHING, AllowList
from midtrain_dagster.decontaminate.cutting import CUTS_SCHEMA, without
from midtrain_dagster.decontaminate.decide import decisive
from midtrain_dagster.deduplicate.passages import SHARES
from midtrain_dagster.documents import ABOUT
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import Curation, Step
from midtrain_dagster.recipes.decontamination import Decontamination
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.recipes.selection import Rule, Selection
from midtrain_dagster.refresh import Refreshed, fingerprint
from midtrain_dagster.select.select import select
from midtrain_dagster.tables import Tables, session
from midtrain_dagster.withdrawals import enforce
from resources.lake import Lake

COORDINATED = "coordinated_ratings"  # table of what several raters say together
CUTS = "cut_spans"  # table of a recipe beside its selection: what it cuts out of documents
HELD_OUT = "held out"  # the reason that selection gives a document which no run trains on
ATTRIBUTES = (
    *("quality_signals", "sensitive_spans", "repeated_text", "duplicate_clusters", "semantic_clusters"),
    *("document_ratings", COORDINATED, "contamination_matches"),
)
TABLE_OF: dict[Step, str] = {
    "deduplicate": "duplicate_clusters",
    "decontaminate": "contamination_matches",
    "rate": "document_ratings",
}


def documents_of(lake: Lake, recipe: str, kept: bool) -> pl.LazyFrame:
    """A recipe's documents with their text, less what the recipe cuts out: those it trains on, or those it holds out."""
    chosen = lake.tables.scan(f"selected_documents/{recipe}")
    chosen = chosen.filter(pl.col("kept")) if kept else chosen.filter(pl.col("reason") == HELD_OUT)
    columns = ["id", "text_hash", "text", "source", "domain", "format", "language", "license", "metadata"]
    texts = lake.tables.scan("clean_documents").select(columns)
    found = chosen.select("id", "text_hash", "repetitions").join(texts, on=["id", "text_hash"], how="inner")
    taken = cuts_of(lake, recipe)
    if not len(taken):
        return found.sort("id")
    cut = taken.lazy().select("id").unique()
    shortened = without(found.join(cut, on="id", how="semi").collect(), taken)
    return pl.concat([found.join(cut, on="id", how="anti"), shortened.lazy()]).sort("id")


def cuts_of(lake: Lake, recipe: str) -> pl.DataFrame:
    """What a recipe cuts out of documents: CUTS_SCHEMA."""
    name = f"{CUTS}/{recipe}"
    return lake.tables.read(name) if lake.tables.exists(name) else pl.DataFrame(schema=CUTS_SCHEMA)


def selection_digest(lake: Lake, recipe: str) -> str:
    """Data version of a recipe's selection: of its rows, of what is cut, and of what is said of the documents that are kept."""
    record = lake.tables.record(f"selected_documents/{recipe}", f"selected_documents/{recipe}")
    if record is None:
        raise MidtrainError(f"selected_documents/{recipe} has not been made yet; materialize it first")
    return fingerprint(with_cuts(lake, recipe, record.digest), said_of(lake.tables, f"selected_documents/{recipe}"))


def said_of(tables: Tables, selected: str) -> str:
    """Digest of what is said of the documents that are kept, beside their text: a component goes by a domain, a card by a licence."""
    if not tables.files(selected) or not tables.files("clean_documents"):
        return ""
    values = {name: name for name in ("id", *ABOUT)} | {"created": "epoch_us(created)"}
    said = ", ".join(f"coalesce({value}::varchar, '')" for value in values.values())
    with session() as con:
        row = con.execute(
            f"select sum(md5_number_lower(concat_ws(chr(31), {said})))::varchar from {tables.relation('clean_documents')} "
            f"semi join (select id, text_hash from {tables.relation(selected)} where kept) using (id, text_hash)"
        ).fetchone()
    return str(row[0] if row else None)


def with_cuts(lake: Lake, recipe: str, selected: str) -> str:
    """Data version of a selection and of its cuts together; the selection's own where nothing is cut."""
    name = f"{CUTS}/{recipe}"
    record = lake.tables.record(name, name)
    return fingerprint(selected, record.digest) if record is not None and record.rows else selected


def decisive_matches(lake: Lake, recipe: Recipe) -> pl.DataFrame:
    """The matches that count for a recipe: of its method, at its threshold, not on its allow-list."""
    settings = recipe.decontamination
    near = lake.tables.scan("contamination_matches").filter(pl.col("score") >= recipe.contamination_score).collect()
    return decisive(near, settings.using(threshold=recipe.contamination_score, allow_list=allow_list(lake, settings)))


def allow_list(lake: Lake, settings: Decontamination) -> Path | None:
    """Where the file of exceptions is: relative to the project file."""
    return None if settings.allow_list is None else lake.root / settings.allow_list


def relations(
    con: duckdb.DuckDBPyConnection,
    tables: Tables,
    sources: list[str],
    method: str,
    allowed: AllowList = NOTHING,
    taken: pl.DataFrame | None = None,
    coordinated: bool = False,
) -> None:
    """Views over pinned versions, as conditions name them: documents, signals, clusters, ratings, matches.

    What was never measured has no view, and a condition that speaks of it is an error. `method` is the one whose matches count;
    those that are `allowed` do not, nor those of documents that they are cut out of (`taken`, CUTS_SCHEMA).
    """

    def of(name: str) -> str:
        return tables.relation(name, sources=sources)

    def held(name: str) -> bool:
        return tables.exists(name) and any(tables.files(name, source=source) for source in sources)

    gone = pl.DataFrame(schema=CUTS_SCHEMA) if taken is None else taken
    con.register("cut_documents", gone.select("id", "text_hash", "left").unique().to_arrow())
    con.register("cut_matches", gone.filter(pl.col("reason") == "contamination").select("id").unique().to_arrow())
    con.execute(
        f"create temp view documents as select id, d.text_hash, source, domain, format, d.language, url, license, created, "
        f"coalesce(c.left, q.characters)::bigint as characters from {of('clean_documents')} d "
        f"left join {of('quality_signals')} q using (id, text_hash, source) left join cut_documents c using (id, text_hash)"
    )
    spans = of("sensitive_spans") if held("sensitive_spans") else "(select null::varchar as id where false)"
    repeated = f"left join {of('repeated_text')} r using (id, text_hash)" if held("repeated_text") else ""
    con.execute(
        f"create temp view signals as select q.* exclude (source, characters, language), coalesce(s.found, 0) as sensitive"
        f"{''.join(f', r.{name}' for name in SHARES) if repeated else ''} from {of('quality_signals')} q "
        f"left join (select id, count(*) as found from {spans} group by id) s using (id) {repeated}"
    )
    if held("duplicate_clusters"):
        semantic = f"left join {of('semantic_clusters')} s using (id, text_hash)" if held("semantic_clusters") else ""
        con.execute(
            f"create temp view clusters as select c.id, c.text_hash, exact_cluster as exact, near_cluster as near"
            f"{', semantic_cluster as semantic' if semantic else ''} from {of('duplicate_clusters')} c {semantic}"
        )
    if held("document_ratings"):
        together = coordinated and held(COORDINATED)
        beside = f"left join (select * exclude (source) from {of(COORDINATED)}) c using (id, text_hash)" if together else ""
        con.execute(f"create temp view ratings as select * exclude (source) from {of('document_ratings')} {beside}")
    if held("contamination_matches"):
        pairs = [*((id, None) for id in sorted(allowed.documents)), *sorted(allowed.pairs)]
        exceptions = pl.DataFrame(pairs, schema={"id": pl.String, "question_id": pl.String}, orient="row")
        con.register("exceptions", exceptions.to_arrow())
        con.execute(
            f"create temp view matches as select id, text_hash, question_id, score from {of('contamination_matches')} m "
            f"where method = '{method}' and id not in (select id from cut_matches) and not exists (select 1 from exceptions e "
            "where e.id = m.id and coalesce(e.question_id, m.question_id) = m.question_id)"
        )
    elif tables.exists("contamination_matches"):
        empty = "'' as id, '' as text_hash, '' as question_id, 0.0::double as score"
        con.execute(f"create temp view matches as select {empty} where false")


def before(curation: Curation, step: Step, source: str, sources: tuple[str, ...], rated: bool) -> list[list[str]]:
    """The assets of the curation steps that come before this one: the order of the project file, as edges of the graph."""
    found: list[list[str]] = []
    for earlier in curation.order[: curation.order.index(step)]:
        if earlier == "deduplicate":
            found.append([TABLE_OF[earlier]])
        elif earlier == "decontaminate" or rated:
            every = sources if step == "deduplicate" else (source,)
            found += [[TABLE_OF[earlier], name] for name in every]
    return found


def passing(lake: Lake, curation: Curation, step: Step, source: str, method: str) -> pl.DataFrame | None:
    """Ids of a source's documents that pass the gate of a step; None where the step has no gate."""
    condition = curation.gates.get(step)
    if condition is None:
        return None
    if not lake.tables.files("clean_documents", source=source):
        return pl.DataFrame(schema={"id": pl.String})
    with session() as con:
        relations(con, lake.tables, [source], method)
        gate = Selection(rules=(Rule(name=f"gate of {step}", keep=condition),))
        return select(con, gate, 0).documents.filter(pl.col("kept")).select("id")


def after_takedowns(tables: Tables, source: str, refreshed: Refreshed) -> Refreshed:
    """What a source holds once everything that was taken down is out, also what was while it was being read."""
    out = enforce(tables, source)
    if not out:
        return refreshed
    record = tables.record("raw_documents", f"raw_documents/{source}")
    assert record is not None
    version = tables.version("raw_documents")
    return refreshed._replace(
        changed=True, gone=refreshed.gone + out, rows=record.rows, digest=record.digest, version=version, about=record.about
    )
