"""The stage over files: signatures batch by batch, then clusters over all of them, old ones included. Bounded in memory."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl

from midtrain_dagster import files
from midtrain_dagster.deduplicate.bands import banding
from midtrain_dagster.deduplicate.cluster import SURVIVORS, batches
from midtrain_dagster.deduplicate.passages import PASSAGES, passages, repeated
from midtrain_dagster.deduplicate.signatures import SIGNATURES, signatures
from midtrain_dagster.documents import REJECTED_SCHEMA, rejected
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.deduplication import Deduplication
from midtrain_dagster.seen import Seen


def run(
    paths: Iterable[Path],
    known: Sequence[Path],
    out: Path,
    settings: Deduplication,
    progress: Progress,
    repeated_lines: bool = False,
) -> dict[str, Any]:
    """Find duplicates among the documents in `paths` and those whose signatures are in `known`; returns counts and speed.

    `repeated_lines`: also how much of each document stands in many of the others.
    """
    started, cpu, size = time.monotonic(), time.process_time(), 0
    bands, reasons = banding(settings), Counter[str]()
    with ExitStack() as stack:
        seen = stack.enter_context(Seen())
        old = _remember(known, seen)
        sink = stack.enter_context(files.ParquetSink(out / "signatures.parquet"))
        lost = stack.enter_context(files.ParquetSink(out / "rejected_records.parquet"))
        sink.write(pl.DataFrame(schema=SIGNATURES))
        lost.write(pl.DataFrame(schema=REJECTED_SCHEMA))
        parts = stack.enter_context(files.ParquetSink(out / "passages.parquet")) if repeated_lines else None
        if parts is not None:
            parts.write(pl.DataFrame(schema=PASSAGES))
        for batch in files.read(paths):
            new = pl.Series([seen.add(identifier) for identifier in batch.documents["id"]], dtype=pl.Boolean)
            fresh = batch.documents.filter(new)
            again = batch.documents.filter(~new).select("id", "source")
            rejects = pl.concat([batch.rejected, rejected(_twice(row) for row in again.iter_rows(named=True))])
            lost.write(rejects)
            reasons.update(rejects["reason"].to_list())
            sink.write(signatures(fresh, settings, progress))
            if parts is not None:
                parts.write(passages(fresh, settings))
            size += int(fresh["text"].str.len_bytes().sum())
        progress.close()
    counts = _clusters([*known, out / "signatures.parquet"], out / "clusters.parquet", settings)
    if parts is not None:
        stored = str(parts.path).replace("'", "''")
        with files.ParquetSink(out / "repeated_text.parquet") as found:
            found.write(repeated(f"read_parquet('{stored}')", settings))
        counts["documents_with_repeated_lines"] = int((pl.read_parquet(found.path)["repeated_lines"] > 0).sum())
    seconds = time.monotonic() - started
    return {
        "read": sink.rows + lost.rows,
        "kept": sink.rows,
        "rejected": lost.rows,
        "rejected_by_reason": dict(sorted(reasons.items())),
        "known": old,
        **counts,
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


def _remember(known: Sequence[Path], seen: Seen) -> int:
    """Note the ids of earlier runs, a batch at a time; returns how many."""
    import pyarrow.parquet

    total = 0
    for path in known:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=["id"], batch_size=65_536):
                    total += seen.update(batch.column(0).to_pylist())
        except (OSError, ValueError) as error:
            raise MidtrainError(f"--known {path}: {' '.join(str(error).split())}; give signatures.parquet of a run") from None
    return total


def _clusters(stored: Sequence[Path], out: Path, settings: Deduplication) -> dict[str, int]:
    exact = near = clusters = 0
    with files.ParquetSink(out) as sink:
        sink.write(pl.DataFrame(schema=SURVIVORS))
        for batch in batches(stored, settings):
            sink.write(batch)
            exact += int((batch["exact_cluster"] != batch["id"]).sum())
            near += int(batch["duplicate"].sum())
            clusters += len(batch.filter((pl.col("cluster_size") > 1) & (pl.col("near_cluster") == pl.col("id"))))
    return {"exact_duplicates": exact, "near_duplicates": near, "clusters": clusters}


def _twice(row: dict[str, Any]) -> dict[str, str]:
    return {
        "source": row["source"],
        "location": row["id"],
        "reason": "duplicate id",
        "detail": "a document with this id came before",
    }
