"""The stage over files: batches in, four Parquet files out, counts that add up."""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl

from midtrain_dagster import files
from midtrain_dagster.clean.clean import SIGNALS, clean
from midtrain_dagster.clean.sensitive import SPANS
from midtrain_dagster.documents import REJECTED_SCHEMA, SCHEMA, rejected
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.cleaning import Cleaning
from midtrain_dagster.seen import Seen

TWICE = "a document with this id came before"


def run(paths: Iterable[Path], out: Path, settings: Cleaning, progress: Progress) -> dict[str, Any]:
    """Clean the documents in `paths` into `out`; returns the counts and the speed."""
    started, cpu, size, changed = time.monotonic(), time.process_time(), 0, 0
    kinds: dict[str, int] = {}
    reasons: Counter[str] = Counter()
    names = {"documents": SCHEMA, "signals": SIGNALS, "spans": SPANS, "rejected_records": REJECTED_SCHEMA}
    with ExitStack() as stack:
        sinks = {name: stack.enter_context(files.ParquetSink(out / f"{name}.parquet")) for name in names}
        for name, schema in names.items():
            sinks[name].write(pl.DataFrame(schema=schema))
        seen = stack.enter_context(Seen())
        for batch in files.read(paths):
            new = pl.Series([seen.add(identifier) for identifier in batch.documents["id"]], dtype=pl.Boolean)
            cleaned = clean(batch.documents.filter(new), settings, progress)
            again = batch.documents.filter(~new).select("id", "source").iter_rows()
            lost_twice = rejected({"source": b, "location": a, "reason": "duplicate id", "detail": TWICE} for a, b in again)
            frames = (*cleaned, pl.concat([batch.rejected, lost_twice]))
            for name, frame in zip(names, frames, strict=True):
                sinks[name].write(frame)
            size += int(batch.documents["text"].str.len_bytes().sum())
            reasons.update(frames[-1]["reason"].to_list())
            changed += int((cleaned.documents["text_hash"] != batch.documents.filter(new)["text_hash"]).sum())
            for kind in cleaned.spans["kind"]:
                kinds[kind] = kinds.get(kind, 0) + 1
        progress.close()
    seconds = time.monotonic() - started
    kept, lost = sinks["documents"].rows, sinks["rejected_records"].rows
    return {
        "read": kept + lost,
        "kept": kept,
        "rejected": lost,
        "rejected_by_reason": dict(sorted(reasons.items())),
        "changed": changed,
        "spans": dict(sorted(kinds.items())),
        "megabytes": round(size / 1e6, 3),
        "seconds": round(seconds, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "megabytes_per_second": round(size / 1e6 / max(seconds, 1e-9), 3),
        "out": str(out),
    }
