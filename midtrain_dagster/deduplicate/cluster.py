"""Clusters of duplicates from signatures alone, in bounded memory, the same for every order of input.

A cluster's name is the smallest id in it. Two documents are candidates when they share a band; every member of a bucket is
compared with the smallest id there, so that a bucket of n costs n - 1 comparisons. Clusters are the connected components.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

from midtrain_dagster.deduplicate.signatures import SIGNATURES
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.deduplication import Deduplication

CLUSTERS = pl.Schema(
    {"id": pl.String, "text_hash": pl.String, "exact_cluster": pl.String, "near_cluster": pl.String, "cluster_size": pl.Int64}
)
Verify = Callable[[pl.DataFrame], pl.Series]
"""From candidate pairs (`id`, `other`) to a Boolean a pair: whether they are duplicates, e.g. by exact Jaccard."""
BATCH = 50_000


def cluster(
    signatures: pl.DataFrame | Sequence[Path], settings: Deduplication | None = None, verify: Verify | None = None
) -> pl.DataFrame:
    """CLUSTERS of all documents, sorted by id, from a frame of SIGNATURES or Parquet files of them
    (hashes signed or unsigned).

    A document alone is a cluster of its own, of size 1. Exact duplicates are near duplicates too. `verify` decides
    candidate pairs in place of the estimate from the signatures. Raises MidtrainError when an id occurs twice.
    """
    settings = settings or Deduplication()
    with (
        tempfile.TemporaryDirectory(prefix="midtrain-clusters-") as folder,
        duckdb.connect(str(Path(folder) / "clusters.duckdb")) as db,
    ):
        db.execute(f"SET memory_limit = '{settings.memory}'")
        db.execute(f"SET temp_directory = '{folder}'")
        _load(db, signatures)
        exact = _components(_pairs(db, "SELECT exact_hash AS bucket, words, number FROM documents", "bucket, words"))
        near_edges = _pairs(db, "SELECT unnest(bands) AS bucket, number FROM documents WHERE len(bands) > 0", "bucket")
        near = _components([*_as_edges(exact), *_confirmed(db, near_edges, settings, verify)])
        return _named(db, exact, near)


def _load(db: duckdb.DuckDBPyConnection, signatures: pl.DataFrame | Sequence[Path]) -> None:
    """Number the documents by id: a number is smaller exactly when the id is."""
    columns = ", ".join(name for name in SIGNATURES if name != "characters")
    if isinstance(signatures, pl.DataFrame):
        db.register("given", signatures.select(SIGNATURES.names()).to_arrow())
        source = "given"
    else:
        source = "read_parquet([" + ", ".join("'" + str(path).replace("'", "''") + "'" for path in signatures) + "])"
    db.execute(f"CREATE TABLE documents AS SELECT row_number() OVER (ORDER BY id) - 1 AS number, {columns} FROM {source}")
    twice = db.execute("SELECT id FROM documents GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT 1").fetchone()
    if twice:
        raise MidtrainError(f"deduplicate: the id {twice[0]} occurs more than once; give each document one signature")


Edges = tuple[np.ndarray, np.ndarray]


def _pairs(db: duckdb.DuckDBPyConnection, select: str, partition: str) -> Iterator[Edges]:
    """(member, smallest member) of each bucket of two or more, in batches, each pair once."""
    smallest = f"SELECT number, min(number) OVER (PARTITION BY {partition}) AS least FROM ({select})"
    cursor = db.cursor().execute(
        f"SELECT DISTINCT number, least FROM ({smallest}) WHERE number <> least ORDER BY number, least"
    )
    while batch := cursor.fetchmany(BATCH):
        pairs = np.array(batch, dtype=np.int64)
        yield pairs[:, 0], pairs[:, 1]


def _confirmed(
    db: duckdb.DuckDBPyConnection, edges: Iterator[Edges], settings: Deduplication, verify: Verify | None
) -> Iterator[Edges]:
    """The candidate pairs that are duplicates."""
    for left, right in edges:
        if verify is not None:
            pairs = _lookup(db, left, right, "id")
            keep = verify(pairs.select("id", "other")).to_numpy().astype(bool)
        elif settings.confirm:
            pairs = _lookup(db, left, right, "sketch")
            error = (settings.jaccard * (1 - settings.jaccard) / settings.permutations) ** 0.5
            keep = similarity(pairs["sketch"], pairs["other"]) >= settings.jaccard - error
        else:
            keep = np.ones(len(left), dtype=bool)
        yield left[keep], right[keep]


def _lookup(db: duckdb.DuckDBPyConnection, left: np.ndarray, right: np.ndarray, column: str) -> pl.DataFrame:
    """`column` of both sides of each pair, in the order of the pairs."""
    pairs = pl.DataFrame({"position": np.arange(len(left)), "a": left, "b": right}).to_arrow()
    db.register("pairs", pairs)
    found = db.sql(
        f"SELECT x.{column} AS {column}, y.{column} AS other FROM pairs JOIN documents x ON x.number = a "
        "JOIN documents y ON y.number = b ORDER BY position"
    )
    return pl.DataFrame(pl.from_arrow(found.to_arrow_table()))


def similarity(left: pl.Series, right: pl.Series) -> np.ndarray:
    """Estimated Jaccard similarity of pairs of sketches: the share of equal bytes, less what chance makes equal (1 in 256).

    Li and König, b-Bit Minwise Hashing, arXiv:0910.3349.
    """
    if left.is_empty():
        return np.zeros(0)
    a = np.frombuffer(b"".join(left), dtype=np.uint8).reshape(len(left), -1)
    b = np.frombuffer(b"".join(right), dtype=np.uint8).reshape(len(right), -1)
    return ((a == b).mean(axis=1) - 1 / 256) / (1 - 1 / 256)


def _components(edges: Any) -> pl.DataFrame:
    """`number` and `least`, the smallest number of its component, of every document that has an edge."""
    from midtrain_dagster.deduplicate.kernels import components

    parts = list(edges)
    left = np.concatenate([np.zeros(0, np.int64), *(part[0] for part in parts)])
    right = np.concatenate([np.zeros(0, np.int64), *(part[1] for part in parts)])
    nodes = np.unique(np.concatenate([left, right]))
    least = components(np.searchsorted(nodes, left), np.searchsorted(nodes, right), nodes.size)
    return pl.DataFrame({"number": nodes, "least": nodes[least]}, schema={"number": pl.Int64, "least": pl.Int64})


def _as_edges(members: pl.DataFrame) -> Iterator[Edges]:
    yield members["number"].to_numpy(), members["least"].to_numpy()


def _named(db: duckdb.DuckDBPyConnection, exact: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    """Numbers back to ids, with the sizes."""
    db.register("exact_members", exact.to_arrow())
    db.register("near_members", near.to_arrow())
    found = db.sql(
        """
        WITH numbered AS (
            SELECT d.number, d.id, d.text_hash, coalesce(e.least, d.number) AS e, coalesce(n.least, d.number) AS n
            FROM documents d LEFT JOIN exact_members e USING (number) LEFT JOIN near_members n USING (number)
        ), sizes AS (SELECT n, count(*) AS cluster_size FROM numbered GROUP BY n)
        SELECT a.id, a.text_hash, x.id AS exact_cluster, y.id AS near_cluster, cluster_size
        FROM numbered a JOIN documents x ON x.number = a.e JOIN documents y ON y.number = a.n JOIN sizes s ON s.n = a.n
        ORDER BY a.number
        """
    )
    frame = pl.DataFrame(pl.from_arrow(found.to_arrow_table()))
    return frame.cast(CLUSTERS)


def survivors(
    clusters: pl.DataFrame,
    signatures: pl.DataFrame,
    settings: Deduplication | None = None,
    preference: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """`clusters` with `survivor` (the id that stays of its near cluster) and `duplicate` (whether that is another one).

    `preference` (`id`, `preference`; higher stays) comes before the rule of the settings: ratings, or the rank of a
    source. A document that it does not name comes last. Ties go to the smallest id, so the answer is the same for every order.
    """
    settings = settings or Deduplication()
    frame = clusters.join(signatures.select("id", "characters"), on="id", how="left", validate="1:1")
    if preference is None:
        frame = frame.with_columns(preference=pl.lit(0.0))
    else:
        frame = frame.join(preference.select("id", pl.col("preference").cast(pl.Float64)), on="id", how="left", validate="1:1")
    length = pl.col("characters") if settings.survivor == "longest" else pl.lit(0)
    frame = frame.with_columns(pl.col("preference").fill_null(-float("inf")), length.alias("length"))
    ranked = frame.sort("preference", "length", "id", descending=[True, True, False])
    first = ranked.group_by("near_cluster", maintain_order=True).agg(survivor=pl.col("id").first())
    joined = clusters.join(first, on="near_cluster", how="left", maintain_order="left")
    return joined.with_columns(duplicate=pl.col("survivor") != pl.col("id"))
