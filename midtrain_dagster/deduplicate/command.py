"""The stage over files: signatures batch by batch, then clusters over all of them, old ones included."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from midtrain_dagster import files
from midtrain_dagster.deduplicate.bands import banding
from midtrain_dagster.deduplicate.cluster import cluster, survivors
from midtrain_dagster.deduplicate.signatures import SIGNATURES, signatures
from midtrain_dagster.documents import REJECTED_SCHEMA, rejected
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.deduplication import Deduplication


def run(paths: Iterable[Path], known: Sequence[Path], out: Path, settings: Deduplication, progress: Progress) -> dict[str, Any]:
    """Find duplicates among the documents in `paths` and those whose signatures are in `known`; returns counts and speed."""
    started, cpu, size = time.monotonic(), time.process_time(), 0
    bands = banding(settings)
    seen = set(pl.scan_parquet(list(known)).select("id").collect()["id"]) if known else set[str]()
    old = len(seen)
    with files.ParquetSink(out / "signatures.parquet") as sink, files.ParquetSink(out / "rejected_records.parquet") as lost:
        sink.write(pl.DataFrame(schema=SIGNATURES))
        lost.write(pl.DataFrame(schema=REJECTED_SCHEMA))
        for batch in files.read(paths):
            fresh = batch.documents.filter(~pl.col("id").is_in(list(seen)) & pl.col("id").is_first_distinct())
            again = batch.documents.join(fresh.select("id"), on="id", how="anti")
            again = pl.concat(
                [again, batch.documents.filter(~pl.col("id").is_first_distinct()).filter(pl.col("id").is_in(fresh["id"]))]
            )
            lost.write(batch.rejected)
            lost.write(rejected(_twice(row) for row in again.select("id", "source").iter_rows(named=True)))
            seen.update(fresh["id"])
            sink.write(signatures(fresh, settings, progress))
            size += int(fresh["text"].str.len_bytes().sum())
        progress.close()
    stored = [*known, out / "signatures.parquet"]
    clusters = survivors(cluster(stored, settings), pl.read_parquet(stored, columns=["id", "characters"]), settings)
    with files.ParquetSink(out / "clusters.parquet") as sink_clusters:
        sink_clusters.write(clusters)
    seconds = time.monotonic() - started
    return {
        "read": sink.rows + lost.rows,
        "kept": sink.rows,
        "rejected": lost.rows,
        "known": old,
        "exact_duplicates": int((clusters["exact_cluster"] != clusters["id"]).sum()),
        "near_duplicates": int(clusters["duplicate"].sum()),
        "clusters": int(clusters.filter(pl.col("cluster_size") > 1)["near_cluster"].n_unique()),
        "bands": bands.bands,
        "rows": bands.rows,
        "false_negative": round(bands.false_negative, 4),
        "false_positive": round(bands.false_positive, 4),
        "megabytes": round(size / 1e6, 3),
        "seconds": round(seconds, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "megabytes_per_second": round(size / 1e6 / max(seconds, 1e-9), 3),
        "out": str(out),
    }


def _twice(row: dict[str, Any]) -> dict[str, str]:
    return {
        "source": row["source"],
        "location": row["id"],
        "reason": "duplicate id",
        "detail": "a document with this id came before",
    }
