"""Clusters after some documents came or went, without finding the untouched ones again: the same as from all documents.

What makes a pair an edge is that one is the first of a bucket of the other's, so only buckets with a document that came or
went have other edges than before. Touched are the clusters that (1) lost a document, (2) have a new edge, or an equal text,
with any document, or (3) may have lost an edge: two of their documents share a bucket that has a new first one. No edge leads
out of the touched clusters and the new documents together, and the others keep all their edges; so these alone are found again.

The stored bands are read by streaming, some 200 bytes a document; what is held is what is in the buckets of new documents.
"""

import duckdb
import polars as pl

from midtrain_dagster.deduplicate.cluster import BATCH, Signatures, alike, clustered, on_disk, selectable, together
from midtrain_dagster.deduplicate.signatures import SIGNATURES
from midtrain_dagster.project.deduplication import Deduplication


def touched(
    clusters: str | pl.DataFrame,
    present: Signatures,
    new: pl.DataFrame,
    gone: pl.DataFrame,
    settings: Deduplication | None = None,
) -> pl.DataFrame:
    """CLUSTERS of the new documents and of all in clusters that they or the gone ones touch, sorted by id; others are as before.

    `clusters` (`id`, `near_cluster`, a frame or SQL) are those of the documents before. `present` are the signatures now, `new`
    among them. `gone` are the signatures that are no longer among them; a document whose text changed is in both.
    """
    settings = settings or Deduplication()
    with on_disk(settings) as (db, folder):
        db.register("new", new.select(SIGNATURES.names()).to_arrow())
        db.register("gone", gone.select(SIGNATURES.names()).to_arrow())
        if isinstance(clusters, pl.DataFrame):
            db.register("clusters", clusters.select("id", "near_cluster").to_arrow())
            clusters = "clusters"
        everything = selectable(db, "present", present)
        db.execute("CREATE SCHEMA looking")
        db.execute("SET schema = 'looking'")
        for step in _BUCKETS:
            db.execute(step.format(present=everything, clusters=clusters))
        _edges(db, everything, settings)
        for step in _TOUCHED:
            db.execute(step.format(present=everything))
        columns = ", ".join(SIGNATURES.names())
        found = db.sql(f"SELECT {columns} FROM {everything} SEMI JOIN concerned USING (id)").to_arrow_table()
        db.execute("SET schema = 'main'")
        db.execute("DROP SCHEMA looking CASCADE")
        return together(clustered(db, folder, pl.DataFrame(pl.from_arrow(found)), settings, among=present))


_BUCKETS = (
    "CREATE VIEW was AS SELECT id, near_cluster AS name FROM {clusters}",
    "CREATE TABLE came AS SELECT id, unnest(bands) AS bucket FROM new",
    "CREATE TABLE went AS SELECT id, unnest(bands) AS bucket FROM gone",
    "CREATE TABLE moved AS SELECT bucket FROM came UNION SELECT bucket FROM went",
    "CREATE TABLE members AS SELECT bucket, id, id IN (SELECT id FROM new) AS fresh "
    "FROM (SELECT unnest(bands) AS bucket, id FROM {present}) SEMI JOIN moved USING (bucket)",
    # The first of each bucket now and before; nobody before where all its documents are new. A new text may keep its id.
    "CREATE TABLE firsts AS SELECT bucket, now, least(stayed, gone_first) AS before, coalesce(came = now, false) AS renewed FROM "
    "(SELECT bucket, min(id) AS now, min(id) FILTER (NOT fresh) AS stayed, min(id) FILTER (fresh) AS came "
    "FROM members GROUP BY bucket) LEFT JOIN (SELECT bucket, min(id) AS gone_first FROM went GROUP BY bucket) USING (bucket)",
    "CREATE TABLE pairs AS SELECT DISTINCT id, now AS first FROM members JOIN firsts USING (bucket) "
    "WHERE id <> now AND (fresh OR renewed OR before <> now)",
    "CREATE TABLE edges (id VARCHAR, first VARCHAR)",
)
_TOUCHED = (
    # (3): with its former first, in a bucket that has another one now
    "CREATE TABLE parted AS SELECT a.name FROM members m JOIN firsts f USING (bucket) JOIN was a ON a.id = m.id "
    "JOIN was b ON b.id = f.before WHERE f.now <> f.before AND NOT m.fresh AND m.id <> f.before AND a.name = b.name",
    # (2): of equal words
    "CREATE TABLE equals AS SELECT id FROM {present} SEMI JOIN new USING (exact_hash, words)",
    "CREATE TABLE meeting AS SELECT id FROM edges UNION SELECT first FROM edges UNION SELECT id FROM equals "
    "UNION SELECT id FROM gone",
    "CREATE TABLE names AS SELECT name FROM was SEMI JOIN meeting USING (id) UNION SELECT name FROM parted",
    "CREATE TABLE concerned AS SELECT id FROM was SEMI JOIN names USING (name) UNION SELECT id FROM new",
)


def _edges(db: duckdb.DuckDBPyConnection, everything: str, settings: Deduplication) -> None:
    """Keep those of `pairs` that are duplicates in `edges`."""
    if not settings.confirm:
        db.execute("INSERT INTO edges SELECT id, first FROM pairs")
        return
    db.execute(
        "CREATE TABLE sketches AS SELECT id, sketch FROM "
        f"{everything} SEMI JOIN (SELECT id FROM pairs UNION SELECT first FROM pairs) USING (id)"
    )
    with db.cursor() as reading:
        reading.execute("SET schema = 'looking'")
        for batch in reading.sql(_COMPARED).to_arrow_reader(BATCH):
            frame = pl.DataFrame(pl.from_arrow(batch))
            kept = frame.filter(pl.Series(alike(frame["sketch"], frame["other"], settings))).select("id", "first")
            db.register("kept", kept.to_arrow())
            db.execute("INSERT INTO edges SELECT id, first FROM kept")
            db.unregister("kept")


_COMPARED = (
    "SELECT p.id, first, s.sketch, f.sketch AS other FROM pairs p JOIN sketches s USING (id) JOIN sketches f ON f.id = first"
)
