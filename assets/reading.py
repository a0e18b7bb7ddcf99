"""What more than one stage's assets read from the lake."""

import polars as pl

from midtrain_dagster.errors import MidtrainError
from resources.lake import Lake

HELD_OUT = "held out"  # the reason that selection gives a document which no run trains on


def documents_of(lake: Lake, recipe: str, kept: bool) -> pl.LazyFrame:
    """A recipe's documents with their text: those it trains on, or those it holds out."""
    chosen = lake.tables.scan(f"selected_documents/{recipe}")
    chosen = chosen.filter(pl.col("kept")) if kept else chosen.filter(pl.col("reason") == HELD_OUT)
    columns = ["id", "text_hash", "text", "source", "domain", "format", "language", "license", "metadata"]
    texts = lake.tables.scan("clean_documents").select(columns)
    return chosen.select("id", "text_hash", "repetitions").join(texts, on=["id", "text_hash"], how="inner").sort("id")


def selection_digest(lake: Lake, recipe: str) -> str:
    """Data version of a recipe's selection."""
    record = lake.tables.record(f"selected_documents/{recipe}", f"selected_documents/{recipe}")
    if record is None:
        raise MidtrainError(f"selected_documents/{recipe} has not been made yet; materialize it first")
    return record.digest
