"""What more than one stage's assets read from the lake."""

import duckdb
import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import Curation, Step
from midtrain_dagster.recipes.selection import Rule, Selection
from midtrain_dagster.refresh import Refreshed
from midtrain_dagster.select.select import select
from midtrain_dagster.tables import Tables, database
from midtrain_dagster.withdrawals import enforce
from resources.lake import Lake

HELD_OUT = "held out"  # the reason that selection gives a document which no run trains on
ATTRIBUTES = ("quality_signals", "sensitive_spans", "duplicate_clusters", "document_ratings", "contamination_matches")
TABLE_OF: dict[Step, str] = {
    "deduplicate": "duplicate_clusters",
    "decontaminate": "contamination_matches",
    "rate": "document_ratings",
}


def documents_of(lake: Lake, recipe: str, kept: bool) -> pl.LazyFrame:
    """A recipe's documents with their text: those it trains on, or those it holds out."""
    chosen = lake.tables.scan(f"selected_documents/{recipe}")
    chosen = chosen.filter(pl.col("kept")) if kept else chosen.filter(pl.col("reason") == HELD_OUT)
    columns = ["id", "text_hash", "text", "source", "domain", "format", "language", "license", "metadata"]
    texts = lake.tables.scan("clean_documents").select(columns)
    return chosen.select("id", "text_hash", "repetitions").join(texts, on=["id", "text_hash"], how="inner").sort("id")


def selection_digest(lake: Lake, recipe: str) -> str:
    """Data version of a recipe's selection."""
    record = lake.tables.record(f"selected_documents/{recipe}", f"selected_documents/{recipe}")
    if record is None:
        raise MidtrainError(f"selected_documents/{recipe} has not been made yet; materialize it first")
    return record.digest


def relations(con: duckdb.DuckDBPyConnection, tables: Tables, sources: list[str], method: str) -> None:
    """Views over pinned versions, as conditions name them: documents, signals, clusters, ratings, matches.

    What was never measured has no view, and a condition that speaks of it is an error. `method` is the one whose matches count.
    """

    def of(name: str) -> str:
        return tables.relation(name, sources=sources)

    def held(name: str) -> bool:
        return tables.exists(name) and any(tables.files(name, source=source) for source in sources)

    con.execute(
        f"create view documents as select id, text_hash, source, domain, format, language, url, license, created, "
        f"length(text)::bigint as characters from {of('clean_documents')}"
    )
    spans = of("sensitive_spans") if held("sensitive_spans") else "(select null::varchar as id where false)"
    con.execute(
        f"create view signals as select q.* exclude (source, characters, language), coalesce(s.found, 0) as sensitive "
        f"from {of('quality_signals')} q left join (select id, count(*) as found from {spans} group by id) s using (id)"
    )
    if held("duplicate_clusters"):
        clusters = of("duplicate_clusters")
        con.execute(
            f"create view clusters as select id, text_hash, exact_cluster as exact, near_cluster as near from {clusters}"
        )
    if held("document_ratings"):
        con.execute(f"create view ratings as select * exclude (source) from {of('document_ratings')}")
    if held("contamination_matches"):
        con.execute(
            f"create view matches as select id, text_hash, question_id, score from {of('contamination_matches')} "
            f"where method = '{method}'"
        )
    elif tables.exists("contamination_matches"):
        empty = "'' as id, '' as text_hash, '' as question_id, 0.0::double as score"
        con.execute(f"create view matches as select {empty} where false")


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
    with database() as con:
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
