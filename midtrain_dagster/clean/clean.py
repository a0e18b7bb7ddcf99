"""Cleaning: documents in; repaired documents, quality signals and sensitive spans out. Nothing is dropped here."""

from typing import NamedTuple

import polars as pl

from midtrain_dagster.clean.language import identify
from midtrain_dagster.clean.repair import repair
from midtrain_dagster.clean.sensitive import SPANS, mask, spans
from midtrain_dagster.clean.signals import COLUMNS, quality_signals
from midtrain_dagster.documents import text_hash
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.cleaning import Cleaning

SIGNALS = pl.Schema(
    {
        "id": pl.String,
        "text_hash": pl.String,
        "language": pl.String,
        "language_score": pl.Float64,
        **dict.fromkeys(COLUMNS, pl.Float64),
    }
)


class Cleaned(NamedTuple):
    """What cleaning gives, rows in input order. `text_hash` is everywhere that of the text in `documents`."""

    documents: pl.DataFrame  # documents.SCHEMA; `language` filled where it was null
    signals: pl.DataFrame  # SIGNALS, one row a document, measured on the repaired text before masking, but for `characters`
    spans: pl.DataFrame  # SPANS; offsets in characters of the repaired text before masking, whatever the action


def clean(documents: pl.DataFrame, settings: Cleaning | None = None, progress: Progress | None = None) -> Cleaned:
    """Clean documents (documents.SCHEMA), each by itself: the result of one does not depend on the others.

    With action "mask" the spans are replaced in the text by their kind in angle brackets, so offsets then refer to the text as it
    was before. "drop" and "keep" leave the text; selection reads `spans`. Raises MidtrainError without a language model.
    """
    settings = settings or Cleaning()
    repaired = documents.with_columns(text=repair(documents["text"], documents["format"] == "code", settings))
    found = spans(repaired, settings.sensitive) if settings.sensitive else pl.DataFrame(schema=SPANS)
    languages = identify(repaired["text"], settings.language_model, settings.language_characters)
    measured = quality_signals(repaired["text"])
    if settings.action == "mask" and not found.is_empty():
        repaired = _masked(repaired, found)
    hashes = pl.Series("text_hash", [text_hash(text) for text in repaired["text"]], dtype=pl.String)
    language = pl.coalesce(pl.col("language"), languages["language"])
    cleaned = repaired.with_columns(text_hash=hashes, language=language)
    measured = measured.with_columns(characters=cleaned["text"].str.len_chars())  # so that nobody reads the text to know
    signals = pl.concat([cleaned.select("id", "text_hash"), languages, measured], how="horizontal").cast(SIGNALS)
    renamed = found.drop("text_hash").join(cleaned.select("id", "text_hash"), on="id", how="left", maintain_order="left")
    if progress:
        progress.advance(len(documents))
    return Cleaned(cleaned, signals, renamed.select(SPANS.names()))


def _masked(documents: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """The documents with their spans masked; only those that have one are touched."""
    by_id: dict[str, list[tuple[str, int, int]]] = {}
    for row in found.iter_rows(named=True):
        by_id.setdefault(row["id"], []).append((row["kind"], row["start"], row["end"]))
    where = documents["id"].is_in(list(by_id)).arg_true()
    masked = [mask(text, by_id[key]) for key, text in documents.select("id", "text")[where.to_list()].iter_rows()]
    return documents.with_columns(text=documents["text"].scatter(where, masked))
