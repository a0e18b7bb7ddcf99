"""Lines that many documents of one source share: menus, notices, licence headers."""

import polars as pl

from midtrain_dagster.project.deduplication import Deduplication

REPEATED = pl.Schema(
    {
        "id": pl.String,
        "text_hash": pl.String,
        "lines": pl.Int64,  # that are long enough to count
        "repeated_lines": pl.Int64,
        "repeated_line_character_ratio": pl.Float64,  # of the characters in counted lines; null without any
    }
)


def lines(documents: pl.DataFrame, settings: Deduplication | None = None) -> pl.DataFrame:
    """`id, text_hash, source, line_hash, characters` of every counted line: store it, and old text is not read again."""
    settings = settings or Deduplication()
    each = documents.select("id", "text_hash", "source", line=pl.col("text").fill_null("").str.split("\n")).explode("line")
    each = each.with_columns(pl.col("line").str.strip_chars().str.to_lowercase())
    each = each.with_columns(characters=pl.col("line").str.len_chars().cast(pl.Int64))
    each = each.filter(pl.col("characters") >= settings.line_characters)
    return each.with_columns(line_hash=pl.col("line").hash(seed=1)).drop("line")


def repeated(stored: pl.DataFrame, settings: Deduplication | None = None) -> pl.DataFrame:
    """REPEATED of every document that has a counted line, sorted by id, from what `lines` gave."""
    settings = settings or Deduplication()
    spread = stored.group_by("source", "line_hash").agg(documents=pl.col("id").n_unique())
    often = stored.join(spread, on=["source", "line_hash"], how="left", nulls_equal=True)
    often = often.with_columns(again=pl.col("documents") >= settings.line_documents)
    grouped = often.group_by("id", "text_hash").agg(
        lines=pl.len().cast(pl.Int64),
        repeated_lines=pl.col("again").sum().cast(pl.Int64),
        repeated_line_character_ratio=pl.col("characters").filter("again").sum() / pl.col("characters").sum(),
    )
    return grouped.sort("id").cast(REPEATED)


def repeated_lines(documents: pl.DataFrame, settings: Deduplication | None = None) -> pl.DataFrame:
    """REPEATED of every document, sorted by id: how much of it stands in many documents of its source."""
    counted = repeated(lines(documents, settings), settings)
    every = documents.select("id", "text_hash").join(counted, on=["id", "text_hash"], how="left")
    return every.with_columns(pl.col("lines", "repeated_lines").fill_null(0)).sort("id").cast(REPEATED)
