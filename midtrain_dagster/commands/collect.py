"""`midtrain collect`: the stage on plain files."""

import time
from collections import Counter
from datetime import UTC, datetime
from itertools import islice
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
        kind: str = typer.Argument(
            help="Format (warc, wet, jsonl, parquet, wikipedia, stackexchange, books, code, crawl, …) or corpus (c4, pile, redstone, megamath, …)."
        ),
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
        list_only: bool = typer.Option(
            False, "--list-only", help="common_crawl: write which records to fetch (records.parquet), and fetch none."
        ),
    ) -> None:
        """Collect documents from files of one format, a website or an index of Common Crawl."""
        from midtrain_dagster.collect.columns import corpora
        from midtrain_dagster.project.kinds import implied

        settings = {
            **implied(kind, location, frozenset(corpora())),
            "name": name,
            "location": location,
            "domain": domain,
            "license": license,
            **_options(option or []),
        }
        given = {key: value for key, value in settings.items() if value is not None}
        console.result(_list(given, out) if list_only else _collect(given, out, workers))


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


def _list(settings: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write the records that a Common Crawl index names, with the bytes that fetching them would take."""
    import polars as pl

    from midtrain_dagster.collect.common_crawl import Entry, entries
    from midtrain_dagster.collect.network import Network
    from midtrain_dagster.documents import rejected
    from midtrain_dagster.files import ParquetSink
    from midtrain_dagster.project.sources import CommonCrawl, source

    started = time.perf_counter()
    schema = pl.Schema({name: pl.Int64 if kind is int else pl.String for name, kind in Entry.__annotations__.items()})
    checked = source(settings, where="midtrain collect")
    if not isinstance(checked, CommonCrawl):
        raise MidtrainError("--list-only is for common_crawl: other formats have no index")
    network = Network(checked.agent, checked.allow_private, checked.seconds)
    listed = size = 0
    reasons: Counter[str] = Counter()
    with ParquetSink(out / "records.parquet") as records, ParquetSink(out / "rejected_records.parquet") as lost:
        records.write(pl.DataFrame(schema=schema))
        lost.write(rejected([]))
        items = entries(checked, Path.cwd(), network)
        while batch := list(islice(items, 10_000)):
            found = [item for item in batch if isinstance(item, Entry)]
            broken = [{"source": checked.name, **item._asdict()} for item in batch if not isinstance(item, Entry)]
            records.write(pl.DataFrame(found, schema=schema, orient="row"))
            lost.write(rejected(broken))
            listed += len(found)
            size += sum(item.length for item in found)
            reasons.update(item["reason"] for item in broken)
    counts = dict(sorted(reasons.items()))
    seconds = round(time.perf_counter() - started, 3)
    return {
        "read": listed + sum(counts.values()),
        "listed": listed,
        "rejected": counts,
        "seconds": seconds,
        "bytes_to_fetch": size,
    }
