"""`midtrain rate` on plain files."""

import json

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from midtrain_dagster.commands import rate as command
from midtrain_dagster.errors import MidtrainError


def write(path, texts):
    path.write_text("".join(json.dumps({"id": f"{path.stem}{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    return path


@pytest.fixture
def files(tmp_path):
    write(tmp_path / "good.jsonl", [f"the proof of lemma {n} explains why therefore" for n in range(60)])
    write(tmp_path / "bad.jsonl", [f"buy cheap number {n} click now subscribe" for n in range(60)])
    write(tmp_path / "in.jsonl", ["a proof of the lemma", "click and buy", ""]).open("a").write("not JSON\n")
    return tmp_path


def invoke(*arguments):
    app = typer.Typer()
    command.register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_raters_are_trained_and_every_document_has_a_row(files):
    common = ("--in", files / "in.jsonl", "--out", files / "out", "--positives", files / "good.jsonl")
    common = (*common, "--negatives", files / "bad.jsonl", "--min-words", 2)
    found = json.loads(invoke(*common, "--rater", "quality=fasttext", "--rater", "like=dsir").stdout)
    assert (found["documents"], found["rejected"]) == (3, 1)
    assert found["unrated"] == {"quality": 1, "like": 1}
    assert found["trained"]["quality"]["trained_on"] + found["trained"]["quality"]["held_out"] == 120
    rows = pl.read_parquet(files / "out" / "ratings.parquet")
    assert rows.columns == ["id", "text_hash", "quality", "quality_version", "like", "like_version"]
    assert rows["like"][0] > 0 > rows["like"][1]
    assert len(pl.read_parquet(files / "out" / "rejected_records.parquet")) == 1
    ready = invoke(
        "--in", files / "in.jsonl", "--out", files / "o2", "--rater", f"quality=fasttext:{files / 'out' / 'quality.bin'}"
    )
    assert json.loads(ready.stdout)["versions"]["quality"] == found["versions"]["quality"]


def test_what_is_missing_is_said(files):
    common = ("--in", files / "in.jsonl", "--out", files / "out", "--rater")
    assert "--positives" in str(invoke(*common, "q=fasttext").exception)
    assert "NAME=KIND" in str(invoke(*common, "q=nonsense").exception)
    assert isinstance(invoke(*common, "q=perplexity").exception, MidtrainError)
