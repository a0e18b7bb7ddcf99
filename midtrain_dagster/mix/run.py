"""The whole stage on plain files: tokenize, divide the budget, pack, and say what was done."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from midtrain_dagster import files
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix.components import assign, available
from midtrain_dagster.mix.mixture import mixture
from midtrain_dagster.mix.pack import Packed, pack
from midtrain_dagster.mix.tokens import TokenStore, load_tokenizer, marked
from midtrain_dagster.progress import Progress
from midtrain_dagster.recipes.mixture import Mixture, Packing


def mix_files(
    paths: Sequence[Path],
    tokenizer: Path,
    out: Path,
    settings: Mixture,
    packing: Packing,
    tokenizing: Progress | None = None,
    writing: Progress | None = None,
    selected: Path | None = None,
) -> dict[str, Any]:
    """Pack the documents in `paths` into `out`; returns counts.

    `selected` is what selection wrote: documents that it does not keep, or does not name, are left out, and its repetitions hold.
    Beside the sequences, `out` gets `mixture.parquet`, `left.parquet` (what was left unpacked, and why) and, where input could not be
    read, `rejected_records.parquet`. Tokens are kept in `<out>.tokens` and used again.
    """
    store = TokenStore(out.with_name(out.name + ".tokens"), load_tokenizer(tokenizer), packing.parse_special_tokens)
    fates = _fates(selected) if selected else None
    read, documents, rejected = _tokenized(paths, store, settings, tokenizing, fates)
    table = mixture(available(store.count(documents), bool(settings.language_quotas)), settings)
    packed = pack(documents, table, store, out, packing, settings.seed, writing)
    table.write_parquet(out / "mixture.parquet")
    packed.left.write_parquet(out / "left.parquet")
    if len(rejected):
        rejected.write_parquet(out / "rejected_records.parquet")
    counts = {"read": read, "rejected": len(rejected), "not_selected": read - len(rejected) - len(documents)}
    return {**counts, **summary(packed, table), "out": str(out)}


def _fates(selected: Path) -> pl.DataFrame:
    """`id`, `text_hash` and `repetitions` of the documents that a selection keeps. Raises MidtrainError where the file is none."""
    try:
        rows = pl.read_parquet(selected, columns=["id", "text_hash", "kept", "repetitions"]).filter(pl.col("kept"))
        return rows.select("id", "text_hash", pl.col("repetitions").cast(pl.Float64))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise MidtrainError(
            f"{selected}: no selection can be read from it ({error}); name the selected.parquet of `midtrain select`"
        ) from None


def _tokenized(
    paths: Sequence[Path], store: TokenStore, settings: Mixture, progress: Progress | None, fates: pl.DataFrame | None
) -> tuple[int, pl.DataFrame, pl.DataFrame]:
    """How many records were read; the documents to mix without their text, tokenized and with a component; the rejected records."""
    kept: list[pl.DataFrame] = []
    rejected: list[pl.DataFrame] = []
    read = 0
    said = pl.col("metadata").str.json_path_match("$.repetitions").cast(pl.Float64).fill_null(1.0)
    for batch in files.read(paths):
        read += len(batch.documents) + len(batch.rejected)
        with_repetitions = (
            batch.documents.with_columns(repetitions=said)
            if fates is None
            else batch.documents.join(fates, on=["id", "text_hash"], how="inner", maintain_order="left")
        )
        store.add(with_repetitions.select(batch.documents.columns), progress)
        kept.append(marked(assign(with_repetitions, settings)).drop("text", "metadata", "parent_ids", "generator"))
        rejected.append(batch.rejected)
    documents = pl.concat(kept)
    twice = documents.filter(pl.col("id").is_duplicated())["id"].unique(maintain_order=True)
    if len(twice):
        raise MidtrainError(f"{len(twice)} ids occur more than once in the input, first {twice[0]}; remove duplicates first")
    if fates is not None and documents.is_empty() and read:
        raise MidtrainError(f"of {read:,} documents none is kept by the selection; were these documents selected from?")
    return read, documents, pl.concat(rejected)


def summary(packed: Packed, table: pl.DataFrame) -> dict[str, Any]:
    """Counts for people and programs."""
    mixed = table.group_by("component").agg(
        pl.col("tokens").sum(), pl.col("available_tokens").first(), pl.col("repetitions").first()
    )
    filled = packed.components.group_by("component").agg(pl.col("packed").sum())
    total = max(packed.tokens, 1)
    return {
        "documents": packed.documents,
        "sequences": packed.sequences.count,
        "tokens": packed.tokens,
        "padding": round(packed.padding, 6),
        "cut_documents": packed.cut_documents,
        "chunked_documents": packed.chunked_documents,
        "left_documents": int(packed.left["documents"].sum()),
        "left_tokens": int(packed.left["tokens"].sum()),
        "mixture": {
            row["component"]: {
                "share": round(row["packed"] / total, 6),
                "tokens": row["packed"],
                "budgeted": row["tokens"],
                "available_tokens": row["available_tokens"],
                "repetitions": round(row["repetitions"], 4),
            }
            for row in mixed.join(filled, on="component").sort("component").iter_rows(named=True)
        },
        "digest": packed.sequences.digest,
    }
