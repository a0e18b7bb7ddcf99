"""Clusters of duplicates from signatures alone, in bounded memory, the same for every order of input.

A cluster's name is the smallest id in it. Two documents are candidates when they share a band; every member of a bucket is
compared with the smallest id there, so that a bucket of n costs n - 1 comparisons. Clusters are the connected components.
`touched.py` finds which of them new documents concern, so that the others need not be found again. DuckDB sorts, groups and joins on disk beyond `memory`; the components are found in an array that is a file.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from midtrain_dagster.deduplicate.signatures import SIGNATURES
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.deduplication import Deduplication
from midtrain_dagster.tables import database

CLUSTERS = pl.Schema(
    {"id": pl.String, "text_hash": pl.String, "exact_cluster": pl.String, "near_cluster": pl.String, "cluster_size": pl.Int64}
)
SURVIVORS = pl.Schema([*CLUSTERS.items(), ("survivor", pl.String()), ("duplicate", pl.Boolean())])
Signatures = pl.DataFrame | Sequence[Path] | str
"""A frame of SIGNATURES, Parquet files of them, or SQL that DuckDB can select them from (hashes signed or unsigned)."""
Verify = Callable[[pl.DataFrame], pl.Series]
"""From candidate pairs (`id`, `other`) to a Boolean a pair: whether they are duplicates, e.g. by exact Jaccard."""
BATCH = 20_000
Edges = tuple[np.ndarray, np.ndarray]


def cluster(signatures: Signatures, settings: Deduplication | None = None, verify: Verify | None = None) -> pl.DataFrame:
    """CLUSTERS of all documents, sorted by id.

    A document alone is a cluster of its own, of size 1. Exact duplicates are near duplicates too. `verify` decides
    candidate pairs in place of the estimate from the signatures. Raises MidtrainError when an id occurs twice.
    """
    return together(batches(signatures, settings, verify))


def together(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """CLUSTERS of all parts of SURVIVORS."""
    return pl.concat([pl.DataFrame(schema=CLUSTERS), *(part.select(CLUSTERS.names()) for part in parts)])


def batches(
    signatures: Signatures, settings: Deduplication | None = None, verify: Verify | None = None
) -> Iterator[pl.DataFrame]:
    """SURVIVORS of all documents, sorted by id, a batch at a time: memory does not grow with how many there are.

    The survivor is the member that the settings prefer, without ratings; see `survivors` for those.
    """
    settings = settings or Deduplication()
    with on_disk(settings) as (db, folder):
        yield from clustered(db, folder, signatures, settings, verify)


def clustered(
    db: duckdb.DuckDBPyConnection,
    folder: Path,
    signatures: Signatures,
    settings: Deduplication,
    verify: Verify | None = None,
    among: Signatures | None = None,
) -> Iterator[pl.DataFrame]:
    """As `batches`, in an empty database of `on_disk`.

    `among`: the signatures are those of some whole clusters of these, which say who is first in each bucket.
    """
    _cluster(db, folder, signatures, settings, verify, among)
    length = "-characters" if settings.survivor == "longest" else "0"
    for step in _NAMING:
        db.execute(step.replace("LENGTH", length))
    for batch in db.sql(_NAMED).to_arrow_reader(BATCH):
        yield pl.DataFrame(pl.from_arrow(batch)).select(SURVIVORS.names()).cast(SURVIVORS)


# From numbers to ids, for the members of clusters alone; one join a step, so that each has all the memory to itself.
_NAMING = (
    "CREATE TABLE members AS SELECT number, e, n FROM labels UNION ALL SELECT DISTINCT n, n, n FROM labels",
    "CREATE TABLE member AS SELECT m.number, e, n, id, characters FROM members m JOIN documents d USING (number)",
    "CREATE TABLE best AS SELECT n, count(*) AS cluster_size, min({'length': LENGTH, 'number': number}).number AS survivor "
    "FROM member GROUP BY n",
    "CREATE TABLE near AS SELECT b.n, cluster_size, survivor, m.id AS near_cluster FROM best b JOIN member m ON m.number = b.n",
    "CREATE TABLE named AS SELECT n.*, m.id AS stays FROM near n JOIN member m ON m.number = survivor",
    "CREATE TABLE exact AS SELECT m.number, m.n, x.id AS exact_cluster FROM member m JOIN member x ON x.number = m.e",
    "CREATE TABLE found AS SELECT number, exact_cluster, near_cluster, cluster_size, stays FROM exact JOIN named USING (n)",
)
_NAMED = """
SELECT id, text_hash, coalesce(exact_cluster, id) AS exact_cluster, coalesce(near_cluster, id) AS near_cluster,
    coalesce(cluster_size, 1) AS cluster_size, coalesce(stays, id) AS survivor, coalesce(stays, id) <> id AS duplicate
FROM documents LEFT JOIN found USING (number) ORDER BY number
"""


@contextmanager
def on_disk(settings: Deduplication) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """A database that spills beyond the settings' memory, and the folder that it is in; both are gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="midtrain-clusters-") as folder,
        database(str(Path(folder) / "clusters.duckdb")) as db,
    ):
        db.execute(f"SET memory_limit = '{settings.memory}'")
        db.execute(f"SET temp_directory = '{folder}'")
        db.execute("SET preserve_insertion_order = false")  # numbers say the order; keeping it would cost memory
        db.execute("PRAGMA disable_checkpoint_on_shutdown")  # it is gone in a moment
        yield db, Path(folder)


def _cluster(
    db: duckdb.DuckDBPyConnection,
    folder: Path,
    signatures: Signatures,
    settings: Deduplication,
    verify: Verify | None,
    among: Signatures | None,
) -> None:
    """Make `documents`, numbered by id, and `labels`: the number, exact cluster e and near cluster n of each that is not a cluster's first."""
    from midtrain_dagster.deduplicate import kernels

    total = _load(db, signatures)
    parent = _numbers(folder / "parent", total)
    for left, right in _exact(db):
        kernels.unite(parent, left, right)
    kernels.flatten(parent)
    exact = _numbers(folder / "exact", total)
    exact[:] = parent
    for left, right in _near(db, settings, verify, among):
        kernels.unite(parent, left, right)
    kernels.flatten(parent)
    _label(db, exact, parent)


def _load(db: duckdb.DuckDBPyConnection, signatures: Signatures) -> int:
    """Number the documents by id: a number is smaller exactly when the id is. Returns how many there are."""
    columns = ", ".join(SIGNATURES.names())
    db.execute(f"CREATE TABLE given_rows AS SELECT {columns} FROM {selectable(db, 'given', signatures)}")
    db.execute("SET preserve_insertion_order = true")  # while they are numbered; the ids alone are sorted, for rows are wide
    db.execute("CREATE TABLE ids AS SELECT row_number() OVER () - 1 AS number, id FROM (SELECT id FROM given_rows ORDER BY id)")
    db.execute("SET preserve_insertion_order = false")
    twice = db.execute("SELECT a.id FROM ids a JOIN ids b ON b.number = a.number + 1 AND b.id = a.id LIMIT 1")
    if found := twice.fetchone():
        raise MidtrainError(f"deduplicate: the id {found[0]} occurs more than once; give each document one signature")
    db.execute("CREATE TABLE documents AS SELECT number, given_rows.* FROM given_rows JOIN ids USING (id)")
    db.execute("DROP TABLE given_rows")
    db.execute("DROP TABLE ids")
    return int(db.execute("SELECT count(*) FROM documents").fetchall()[0][0])


def selectable(db: duckdb.DuckDBPyConnection, name: str, signatures: Signatures) -> str:
    """What stands after FROM for some signatures; a frame is registered under a name."""
    if isinstance(signatures, pl.DataFrame):
        db.register(name, signatures.select(SIGNATURES.names()).to_arrow())
        return name
    if isinstance(signatures, str):
        return signatures
    return "read_parquet([" + ", ".join("'" + str(path).replace("'", "''") + "'" for path in signatures) + "])"


def _numbers(path: Path, total: int) -> np.ndarray:
    """0, 1, … as an array whose memory is a file."""
    if not total:
        return np.zeros(0, np.int64)
    array = np.asarray(np.memmap(path, dtype=np.int64, mode="w+", shape=(total,)))
    array[:] = np.arange(total)
    return array


def _edges(reader: duckdb.DuckDBPyRelation) -> Iterator[Edges]:
    for batch in reader.to_arrow_reader(BATCH):
        yield batch.column(0).to_numpy(), batch.column(1).to_numpy()


def _exact(db: duckdb.DuckDBPyConnection) -> Iterator[Edges]:
    """(member, smallest member) of the documents with equal words."""
    equal = "SELECT exact_hash, words, min(number) AS least FROM documents GROUP BY ALL HAVING count(*) > 1"
    yield from _edges(
        db.sql(f"SELECT number, least FROM documents JOIN ({equal}) USING (exact_hash, words) WHERE number <> least")
    )


def _near(
    db: duckdb.DuckDBPyConnection, settings: Deduplication, verify: Verify | None, among: Signatures | None
) -> Iterator[Edges]:
    """(member, smallest member) of each bucket, each pair once, those that are duplicates."""
    db.execute("CREATE TABLE banded AS SELECT unnest(bands) AS bucket, number FROM documents WHERE len(bands) > 0")
    db.execute(
        f"CREATE TABLE buckets AS {_FIRST if among is None else _FIRST_AMONG.format(among=selectable(db, 'among', among))}"
    )
    db.execute("CREATE TABLE shared AS SELECT number, least FROM banded JOIN buckets USING (bucket) WHERE number <> least")
    db.execute("CREATE TABLE pairs AS SELECT DISTINCT number, least FROM shared")
    for table in ("banded", "buckets", "shared"):
        db.execute(f"DROP TABLE {table}")
    column = "id" if verify is not None else "sketch"
    if verify is None and not settings.confirm:
        yield from _edges(db.sql("SELECT number, least FROM pairs"))
        return
    db.execute(f"CREATE TABLE half AS SELECT p.*, d.{column} FROM pairs p JOIN documents d USING (number)")
    found = db.sql(f"SELECT h.number, least, h.{column}, d.{column} AS other FROM half h JOIN documents d ON d.number = least")
    for batch in found.to_arrow_reader(BATCH):
        frame = pl.DataFrame(pl.from_arrow(batch))
        if verify is not None:
            keep = verify(frame.select("id", "other")).to_numpy().astype(bool)
        else:
            keep = alike(frame["sketch"], frame["other"], settings)
        yield frame["number"].to_numpy()[keep], frame["least"].to_numpy()[keep]


_FIRST = "SELECT bucket, min(number) AS least FROM banded GROUP BY bucket HAVING count(*) > 1"
# Whose first document is in another cluster was compared with it, and is not like it.
_FIRST_AMONG = """
SELECT bucket, number AS least FROM documents JOIN (
    SELECT bucket, min(id) AS id FROM (SELECT unnest(bands) AS bucket, id FROM {among}) SEMI JOIN banded USING (bucket)
    GROUP BY bucket HAVING count(*) > 1
) USING (id)
"""


def alike(left: pl.Series, right: pl.Series, settings: Deduplication) -> np.ndarray:
    """Which pairs of sketches are of duplicates: as similar as is asked for, but for three standard errors of the estimate."""
    error = (settings.jaccard * (1 - settings.jaccard) / settings.permutations) ** 0.5
    return similarity(left, right) >= settings.jaccard - 3 * error


def _label(db: duckdb.DuckDBPyConnection, exact: np.ndarray, near: np.ndarray) -> None:
    """The components as a table, without their first members and without documents that are alone."""
    db.execute("CREATE TABLE labels (number BIGINT, e BIGINT, n BIGINT)")
    for start in range(0, len(near), BATCH):
        of, numbers = slice(start, start + BATCH), np.arange(start, min(start + BATCH, len(near)))
        part = pl.DataFrame({"number": numbers, "e": exact[of], "n": near[of]}).filter(pl.col("n") != pl.col("number"))
        db.register("part", part.to_arrow())
        db.execute("INSERT INTO labels SELECT number, e, n FROM part")
        db.unregister("part")


def similarity(left: pl.Series, right: pl.Series) -> np.ndarray:
    """Estimated Jaccard similarity of pairs of sketches: the share of equal bytes, less what chance makes equal (1 in 256).

    Li and König, b-Bit Minwise Hashing, arXiv:0910.3349.
    """
    if left.is_empty():
        return np.zeros(0)
    a = np.frombuffer(b"".join(left), dtype=np.uint8).reshape(len(left), -1)
    b = np.frombuffer(b"".join(right), dtype=np.uint8).reshape(len(right), -1)
    return ((a == b).mean(axis=1) - 1 / 256) / (1 - 1 / 256)


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
