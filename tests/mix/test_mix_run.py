"""The stage on plain files: what a selection keeps is mixed, as often as it says."""

import polars as pl
import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix.run import mix_files
from midtrain_dagster.recipes.mixture import Mixture, Packing


def test_what_is_not_selected_is_left_out_and_counted(word_tokenizer, make_documents, tmp_path):
    word_tokenizer.save_pretrained(tmp_path / "tokenizer")
    frame = make_documents([15] * 5, ["a"] * 5).drop("component")
    frame.write_parquet(tmp_path / "documents.parquet")
    rows = {"kept": [True, False, True, True], "repetitions": pl.Series([1, 0, 3, 1], dtype=pl.Int32)}
    fates = frame[:4].select("id", "text_hash").with_columns(**{name: pl.Series(values) for name, values in rows.items()})
    changed = pl.when(pl.col("id") == "d3").then(pl.lit("another text")).otherwise("text_hash")
    fates.with_columns(text_hash=changed).write_parquet(tmp_path / "selected.parquet")

    def mixed(name: str, selected: str | None = None) -> dict:
        given = [tmp_path / "documents.parquet"], tmp_path / "tokenizer", tmp_path / name
        chosen = tmp_path / selected if selected else None
        return mix_files(*given, Mixture(method="natural"), Packing(sequence_length=16), selected=chosen)

    whole = mixed("whole")
    assert (whole["read"], whole["not_selected"], whole["documents"]) == (5, 0, 5)
    some = mixed("some", "selected.parquet")
    assert (some["read"], some["not_selected"], some["documents"]) == (5, 3, 2)
    spans = pl.read_parquet(tmp_path / "some" / "documents.parquet")["id"].to_list()
    assert sorted(spans) == ["d0", "d2"]
    assert some["sequences"] == 4  # d0 once, d2 three times
    with pytest.raises(MidtrainError, match="no selection can be read from it"):
        mixed("none", "documents.parquet")
    fates.clear().write_parquet(tmp_path / "empty.parquet")
    with pytest.raises(MidtrainError, match="of 5 documents none is kept"):
        mixed("none", "empty.parquet")
