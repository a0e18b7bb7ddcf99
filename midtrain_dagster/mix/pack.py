"""Packing: from a mixture and tokenized documents to the sequences that training reads, with the way back to every document."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix import arrange
from midtrain_dagster.mix.choose import Supply, supplies
from midtrain_dagster.mix.tokens import TokenStore, marked
from midtrain_dagster.progress import Progress
from midtrain_dagster.recipes.mixture import Packing
from midtrain_dagster.sequences import DOCUMENTS_GROUP, Sequences, SequenceWriter

BLOCK_TOKENS = 1 << 22


@dataclass(frozen=True)
class Packed:
    """What packing did."""

    sequences: Sequences
    components: pl.DataFrame  # stage, component, (language), budgeted, packed; per row of the mixture
    left: pl.DataFrame  # component, documents, tokens, reason: everything that is in no sequence
    documents: int
    tokens: int
    padding: float  # share of all positions
    cut_documents: int  # that would have fitted into one sequence, and lie in several
    chunked_documents: int  # longer than a sequence


def pack(
    documents: pl.DataFrame,
    mixture: pl.DataFrame,
    store: TokenStore,
    out: Path,
    settings: Packing,
    seed: int = 0,
    progress: Progress | None = None,
) -> Packed:
    """Fill each row of the mixture with documents of its component and write sequences to `out`.

    `documents` has `id, text_hash, source, component`, optionally `repetitions` (copies in one pass; 1) and `language`
    (needed where the mixture is divided by it); their texts are in `store`. `seed` decides which documents are taken where
    not all are, `settings.seed` the order of the sequences. Stages of the mixture follow one another; within a stage the
    order is uniformly random. Equal inputs give equal bytes, on any number of cores.
    Raises MidtrainError for a document without tokens or ids that are not unique.
    """
    table = _table(documents, store, mixture)
    components = tuple(sorted(mixture["component"].unique()))
    chosen, filled, sources = _choose(table, mixture, settings.sequence_length, seed)
    used = np.unique(np.concatenate([pieces[:, 0] for pieces in chosen])) if chosen else np.empty(0, np.int64)
    spans = _arrange(chosen, settings)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    if progress:
        progress.total = float(spans[:, 2].sum())
    _write(spans, table, used, store, partial, settings, components, progress)
    _documents(table, used).write_parquet(partial / "documents.parquet", row_group_size=DOCUMENTS_GROUP)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    sequences = Sequences.open(out)
    return Packed(
        sequences=sequences,
        components=filled,
        left=_left(table, sources),
        documents=len(used),
        tokens=int(spans[:, 2].sum()),
        padding=1 - float(spans[:, 2].sum()) / max(sequences.count * sequences.length, 1),
        **_cuts(spans, table, settings.sequence_length),
    )


def _keys(mixture: pl.DataFrame) -> list[str]:
    return ["component", *(["language"] if "language" in mixture.columns else [])]


def _table(documents: pl.DataFrame, store: TokenStore, mixture: pl.DataFrame) -> pl.DataFrame:
    """The documents with tokens, repetitions and a row number, in an order that does not depend on that of the input."""
    if documents["id"].n_unique() < len(documents):
        twice = documents.filter(pl.col("id").is_duplicated())["id"][0]
        raise MidtrainError(f"packing: ids must be unique; {twice} occurs more than once")
    if "repetitions" not in documents.columns:
        documents = documents.with_columns(repetitions=pl.lit(1.0))
    if "language" in mixture.columns:
        from midtrain_dagster.mix.languages import UNKNOWN

        documents = documents.with_columns(pl.col("language").fill_null(UNKNOWN))
    keep = ["id", "text_hash", "source", "prompt_characters", "repetitions", *_keys(mixture)]
    return (
        store.count(marked(documents).select(keep).sort("id")).with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    )


def _choose(
    table: pl.DataFrame, mixture: pl.DataFrame, length: int, seed: int
) -> tuple[list[np.ndarray], pl.DataFrame, dict[tuple[str, ...], Supply]]:
    """Pieces of each stage. What one row of the mixture over- or undershoots is made good by the next of its component."""
    keys = _keys(mixture)
    limits = {tuple(str(row[k]) for k in keys): row["max_repetition"] for row in mixture.iter_rows(named=True)}
    sources = supplies(table, limits, keys, seed)
    owed = dict.fromkeys(sources, 0.0)
    stages: list[np.ndarray] = []
    packed: list[int] = []
    ordered = mixture.sort("stage", *keys)
    for _, rows in ordered.group_by("stage", maintain_order=True):
        pieces = [np.empty((0, 3), np.int64)]
        for row in rows.iter_rows(named=True):
            key = tuple(str(row[k]) for k in keys)
            supply = sources.get(key)
            longest = min(length, row.get("document_length") or length)
            found = supply.take(row["tokens"] + owed[key], longest) if supply else np.empty((0, 3), np.int64)
            amount = int(found[:, 2].sum())
            if supply:
                owed[key] += row["tokens"] - amount
            packed.append(amount)
            pieces.append(arrange.chunks(found, longest) if longest < length else found)
        stages.append(np.concatenate(pieces))
    columns = [c for c in ("stage", "stage_name", *keys, "share") if c in ordered.columns]
    filled = ordered.select(*columns, budgeted="tokens").with_columns(packed=pl.Series(packed, dtype=pl.Int64))
    return stages, filled, sources


def _arrange(stages: list[np.ndarray], settings: Packing) -> np.ndarray:
    """Spans of all stages, one after another, sequences shuffled within each.

    Every stage but the last hands its emptiest sequence on to the next, so that stages do not end in padding.
    """
    result, count = [np.empty((0, 5), np.int64)], 0
    carried = np.empty((0, 3), np.int64)
    for number, stage in enumerate(stages):
        pieces = np.concatenate([carried, stage])
        if not len(pieces):
            continue
        rng = np.random.default_rng([settings.seed, number])
        if settings.method == "best_fit":
            spans = arrange.best_fit(
                pieces, settings.sequence_length, settings.max_padding, rng, spare=number < len(stages) - 1
            )
        else:
            spans = arrange.concatenate(pieces, settings.sequence_length, rng)
        if number < len(stages) - 1:
            spans, carried = arrange.without_emptiest(spans, settings.sequence_length)
            if not len(spans):
                continue
        spans = arrange.shuffled(spans, rng)
        spans[:, 0] += count
        count = int(spans[-1, 0]) + 1
        result.append(spans)
    return np.concatenate(result)


def _write(
    spans: np.ndarray,
    table: pl.DataFrame,
    used: np.ndarray,
    store: TokenStore,
    out: Path,
    settings: Packing,
    components: tuple[str, ...],
    progress: Progress | None,
) -> None:
    from midtrain_dagster.mix.kernels import copy_ranges

    tokens, offsets = store.tokens, table["offset"].to_numpy()
    names = pl.Series(components)
    component = (
        table["component"].replace_strict(names, pl.Series(range(len(names))), default=-1, return_dtype=pl.Int64).to_numpy()
    )
    document = np.full(len(table), -1, np.int64)
    document[used] = np.arange(len(used))
    prompts = table["prompts"].to_list() if settings.mask_prompts else None
    length = settings.sequence_length
    with SequenceWriter(out, length, store.vocab_size, components, masked=settings.mask_prompts) as writer:
        for block in _blocks(spans, max(1, BLOCK_TOKENS // length)):
            first, count = int(block[0, 0]), int(block[-1, 0] - block[0, 0]) + 1
            flat = np.full(count * length, store.end_of_text, store.dtype)
            starts = (block[:, 0] - first) * length + block[:, 1]
            copy_ranges(flat, starts, tokens, offsets[block[:, 3]] + block[:, 4], block[:, 2])
            rows = np.stack(
                [block[:, 0] - first, block[:, 1], block[:, 2], component[block[:, 3]], document[block[:, 3]], block[:, 4]],
                axis=1,
            )
            mask = _prompt_mask(block, first, count, length, prompts) if prompts is not None else None
            writer.append(flat.reshape(count, length), rows, mask)
            if progress:
                progress.advance(int(block[:, 2].sum()))


def _blocks(spans: np.ndarray, sequences: int) -> Iterator[np.ndarray]:
    """Spans of so many sequences at a time."""
    if len(spans):
        bounds = np.searchsorted(spans[:, 0], np.arange(0, int(spans[-1, 0]) + 1, sequences))
        yield from np.split(spans, bounds[1:])


def _prompt_mask(block: np.ndarray, first: int, count: int, length: int, prompts: list[list[int]]) -> np.ndarray:
    """1 where a token is a target, 0 inside a prompt."""
    mask = np.ones((count, length), np.uint8)
    for sequence, start, size, row, offset in block:
        marks = prompts[row]
        for begin, end in zip(marks[::2], marks[1::2], strict=True):
            low, high = max(begin - offset, 0), min(end - offset, size)
            if low < high:
                mask[sequence - first, start + low : start + high] = 0
    return mask


def _documents(table: pl.DataFrame, used: np.ndarray) -> pl.DataFrame:
    """`documents.parquet`: row number = `document` in spans."""
    return table[used].select("id", "text_hash", "source", "component")


def _left(table: pl.DataFrame, sources: dict[tuple[str, ...], Supply]) -> pl.DataFrame:
    """What is in no sequence, by component and reason."""
    served = np.zeros(len(table), np.int64)
    for supply in sources.values():
        served[supply.rows] = supply.served
    rest = table.with_columns(missing=(pl.col("tokens") - pl.Series(served)).clip(lower_bound=0), served=pl.Series(served))
    reason = (
        pl.when(pl.col("component").is_null())
        .then(pl.lit("in no component"))
        .when(pl.col("repetitions") <= 0)
        .then(pl.lit("zero repetitions"))
        .when(pl.col("served") > 0)
        .then(pl.lit("end of a document beyond the budget"))
        .otherwise(pl.lit("beyond the budget"))
    )
    return (
        rest.filter(pl.col("missing") > 0)
        .group_by("component", reason=reason)
        .agg(documents=pl.len().cast(pl.Int64), tokens=pl.col("missing").sum())
        .sort("component", "reason")
    )


def _cuts(spans: np.ndarray, table: pl.DataFrame, length: int) -> dict[str, int]:
    """Documents in several spans, apart by whether one sequence would have held them."""
    tokens = table["tokens"].to_numpy()
    short = tokens[spans[:, 3]] <= length
    cut = np.unique(spans[short & (spans[:, 2] < tokens[spans[:, 3]]), 3])
    return {"cut_documents": len(cut), "chunked_documents": len(np.unique(spans[~short, 3]))}
