"""How long an audit takes on a large packing: `python benchmarks/audit.py --spans 100000000`.

Makes packed sequences of the on-disk format (spans.npy, documents.parquet; tokens are not needed), a run that read all of them in
64-sequence steps, and asks: the documents of a step, the use of a document (once to make the index, then again), a withdrawal of
a thousand documents, the tree of the model after it. Prints one JSON object. Takes 48 bytes a span of disk, and 7 more for the indexes.
"""

import argparse
import json
import resource
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from midtrain_dagster.artifacts import Artifacts
from midtrain_dagster.audit.document import step, uses
from midtrain_dagster.audit.lineage import tree
from midtrain_dagster.audit.takedown import seen
from midtrain_dagster.sequences import DOCUMENTS_GROUP
from midtrain_dagster.tables import Record, Tables, digest
from midtrain_dagster.withdrawals import RULE_SCHEMA, RULES, TOMBSTONE_SCHEMA, TOMBSTONES

BLOCK = 5_000_000


def main() -> None:
    """Make, ask, print."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--spans", type=int, default=100_000_000)
    asked.add_argument("--folder", type=Path, default=None, help="where to work; it is removed afterwards")
    given = asked.parse_args()
    root = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        print(json.dumps(measure(root, given.spans)))
    finally:
        shutil.rmtree(root)


def measure(root: Path, spans: int) -> dict[str, Any]:
    """Seconds of each question."""
    artifacts = Artifacts(root / "artifacts")
    made, _ = timed(lambda: packed(artifacts, spans))
    documents = max(1, spans // 4)
    some = [identifier(number) for number in (documents // 2, documents // 3, documents - 1)]
    first, found = timed(lambda: uses(artifacts, "large", some[0]))
    assert found[0]["times"] >= 1
    again = [timed(lambda one=one: uses(artifacts, "large", one))[0] for one in some[1:]]
    batch, rows = timed(lambda: step(artifacts, "large", 7))
    assert len(rows)
    many = pl.DataFrame({"id": [identifier(n) for n in range(0, documents, max(1, documents // 1000))]})
    checkpoint, sequences = artifacts.current("midtrained_checkpoint/large"), artifacts.current("packed_sequences/large")
    takedown, told = timed(lambda: seen("large", checkpoint, sequences, many))
    assert told[0]["documents"] == len(many)
    tables = Tables(root / "tables")
    withdraw(tables, many)
    model, node = timed(lambda: tree(tables, artifacts, "midtrained_checkpoint/large"))
    assert node.about["withdrawn"][0]["documents"] == len(many)
    return {
        "spans": spans,
        "documents": documents,
        "make_seconds": round(made, 1),
        "first_document_seconds": round(first, 2),
        "document_seconds": [round(seconds, 3) for seconds in again],
        "step_seconds": round(batch, 3),
        "takedown_of_thousand_seconds": round(takedown, 2),
        "model_seconds": round(model, 2),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def timed(work: Any) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def identifier(number: int) -> str:
    """The id of a document: 32 hex digits, as real ones."""
    return f"{(number * 0x9E3779B97F4A7C15) % (1 << 64):016x}{number:016x}"


def withdraw(tables: Tables, many: pl.DataFrame) -> None:
    """Tombstones, which an audit of a model looks up in what it read."""
    shared = {"takedown": pl.lit("t"), "at": pl.lit(datetime.now(UTC)), "source": pl.lit("web")}
    for name, schema in ((TOMBSTONES, TOMBSTONE_SCHEMA), (RULES, RULE_SCHEMA)):
        rows = (many if name == TOMBSTONES else many[:1]).with_columns(**shared)
        lacking = [pl.lit(None, kind).alias(column) for column, kind in schema.items() if column not in rows.columns]
        rows = rows.with_columns(lacking).select(schema.names()).cast(schema)
        tables.commit(name, None, rows, Record(name, "1", "", digest(rows), len(rows), {}, {}), replace=True)


def packed(artifacts: Artifacts, spans: int) -> None:
    """Four spans a sequence, four spans a document, documents in random order."""
    count, documents = spans // 4, max(1, spans // 4)

    def pack(out: Path) -> tuple[str, dict[str, Any]]:
        out = out / "train"
        out.mkdir()
        rows = np.lib.format.open_memmap(out / "spans.npy", mode="w+", dtype=np.int64, shape=(count * 4, 6))
        for begin in range(0, count * 4, BLOCK):
            numbers = np.arange(begin, min(begin + BLOCK, count * 4))
            rows[numbers, 0], rows[numbers, 1] = numbers // 4, (numbers % 4) * 1024
            rows[numbers, 2], rows[numbers, 3] = 1024, 0
            rows[numbers, 4] = (numbers * 2_654_435_761) % documents
            rows[numbers, 5] = 0
        rows.flush()
        about = {"length": 4096, "count": count, "vocab_size": 50_000, "dtype": "<u2", "components": ["web"], "digest": "large"}
        (out / "sequences.json").write_text(json.dumps(about))
        write_documents(out / "documents.parquet", documents)
        return "large", {}

    def train(out: Path) -> tuple[str, dict[str, Any]]:
        steps = pl.DataFrame({"step": np.arange(1, count // 64 + 1), "sequences": np.arange(1, count // 64 + 1) * 64})
        steps.with_columns(tokens=pl.col("sequences") * 4096).write_ndjson(out / "steps.jsonl")
        return "large", {}

    found, _ = artifacts.build("packed_sequences/large", "p", pack, {})
    artifacts.build("midtrained_checkpoint/large", "c", train, {"packed_sequences/large": found.fingerprint})


def write_documents(path: Path, count: int) -> None:
    """documents.parquet as the packer writes it."""
    import pyarrow.parquet

    writer = None
    for begin in range(0, count, BLOCK):
        ids = [identifier(number) for number in range(begin, min(begin + BLOCK, count))]
        frame = pl.DataFrame({"id": ids}).with_columns(text_hash=pl.col("id"), source=pl.lit("web"), component=pl.lit("web"))
        table = frame.to_arrow()
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table, row_group_size=DOCUMENTS_GROUP)
    if writer is not None:
        writer.close()


if __name__ == "__main__":
    main()
