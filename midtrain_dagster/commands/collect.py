"""`midtrain collect`: the stage on plain files."""

import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from midtrain_dagster.commands import console
from midtrain_dagster.errors import MidtrainError


def register(app: typer.Typer) -> None:
    """Add this stage's commands."""

    @app.command("collect")
    def collect(
        kind: str = typer.Argument(help="Format: warc, wet, jsonl, parquet, text, code, …"),
        location: str = typer.Argument(help="File, directory, glob or URL."),
        *,
        out: Annotated[Path, typer.Option("--out", help="Directory for documents.parquet and rejected_records.parquet.")],
        name: str = typer.Option("collected", help="Name of the source."),
        domain: str | None = typer.Option(None, help="Subject: web, code, math, prose, …"),
        license: str | None = typer.Option(None, help="SPDX licence of documents that name none."),
        option: Annotated[
            list[str] | None, typer.Option(help="Another setting of the format, as key=value (value as YAML). Repeatable.")
        ] = None,
        workers: int = typer.Option(1, min=1, help="Processes that extract text from HTML."),
    ) -> None:
        """Collect documents from files of one format."""
        settings = {
            "kind": kind,
            "name": name,
            "location": location,
            "domain": domain,
            "license": license,
            **_options(option or []),
        }
        console.result(_collect({key: value for key, value in settings.items() if value is not None}, out, workers))


def _options(given: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for entry in given:
        key, equals, value = entry.partition("=")
        if not equals:
            raise MidtrainError(f"--option {entry}: write it as key=value")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise MidtrainError(f"--option {entry}: {' '.join(str(error).split())}") from None
    return options


def _collect(settings: dict[str, Any], out: Path, workers: int) -> dict[str, Any]:
    from midtrain_dagster.collect.collect import collect
    from midtrain_dagster.documents import documents, rejected
    from midtrain_dagster.files import ParquetSink
    from midtrain_dagster.project.sources import source

    started = time.perf_counter()
    progress = console.progress("collect", "records")
    kept = size = 0
    reasons: Counter[str] = Counter()
    checked = source(settings, where="midtrain collect")
    with ParquetSink(out / "documents.parquet") as texts, ParquetSink(out / "rejected_records.parquet") as lost:
        texts.write(documents([]))  # an empty source still gives a table
        lost.write(rejected([]))
        for batch in collect(checked, Path.cwd(), datetime.now(UTC).replace(microsecond=0), progress, workers):
            texts.write(batch.documents)
            lost.write(batch.rejected)
            kept += len(batch.documents)
            size += int(batch.documents["text"].str.len_bytes().sum())
            reasons.update(batch.rejected["reason"].to_list())
    progress.close()
    seconds = round(time.perf_counter() - started, 3)
    counts = dict(sorted(reasons.items()))
    return {"read": kept + sum(counts.values()), "kept": kept, "rejected": counts, "seconds": seconds, "bytes": size}
