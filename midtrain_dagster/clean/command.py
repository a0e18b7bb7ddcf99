"""The stage over files: batches in, four Parquet files out, counts that add up."""

import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl

from midtrain_dagster import files
from midtrain_dagster.clean.clean import SIGNALS, clean
from midtrain_dagster.clean.sensitive import SPANS
from midtrain_dagster.documents import REJECTED_SCHEMA, SCHEMA
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.cleaning import Cleaning


def run(paths: Iterable[Path], out: Path, settings: Cleaning, progress: Progress) -> dict[str, Any]:
    """Clean the documents in `paths` into `out`; returns the counts and the speed."""
    started, cpu, size, changed = time.monotonic(), time.process_time(), 0, 0
    kinds: dict[str, int] = {}
    names = {"documents": SCHEMA, "signals": SIGNALS, "spans": SPANS, "rejected_records": REJECTED_SCHEMA}
    with ExitStack() as stack:
        sinks = {name: stack.enter_context(files.ParquetSink(out / f"{name}.parquet")) for name in names}
        for name, schema in names.items():
            sinks[name].write(pl.DataFrame(schema=schema))
        for batch in files.read(paths):
            cleaned = clean(batch.documents, settings, progress)
            frames = (*cleaned, batch.rejected)
            for name, frame in zip(names, frames, strict=True):
                sinks[name].write(frame)
            size += int(batch.documents["text"].str.len_bytes().sum())
            changed += int((cleaned.documents["text_hash"] != batch.documents["text_hash"]).sum())
            for kind in cleaned.spans["kind"]:
                kinds[kind] = kinds.get(kind, 0) + 1
        progress.close()
    seconds = time.monotonic() - started
    kept, lost = sinks["documents"].rows, sinks["rejected_records"].rows
    return {
        "read": kept + lost,
        "kept": kept,
        "rejected": lost,
        "changed": changed,
        "spans": dict(sorted(kinds.items())),
        "megabytes": round(size / 1e6, 3),
        "seconds": round(seconds, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "megabytes_per_second": round(size / 1e6 / max(seconds, 1e-9), 3),
        "out": str(out),
    }
