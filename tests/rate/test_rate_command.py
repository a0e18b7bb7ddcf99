"""`midtrain rate` on plain files."""

import json

import polars as pl
import pytest
import typer
from rated_models import save_models
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
    assert found["trained"]["quality"]["trained_on"] + found["trained"]["quality"]["held_out_examples"] == 120
    rows = pl.read_parquet(files / "out" / "ratings.parquet")
    assert rows.columns == ["id", "text_hash", "quality", "quality_version", "like", "like_version"]
    assert rows["like"][0] > 0 > rows["like"][1]
    assert len(pl.read_parquet(files / "out" / "rejected_records.parquet")) == 1
    again = [f"{name}={kind}:{found['trained'][name]['model']}" for name, kind in (("quality", "fasttext"), ("like", "dsir"))]
    ready = ("--in", files / "in.jsonl", "--out", files / "o2", "--min-words", 2, "--rater", again[0], "--rater", again[1])
    assert json.loads(invoke(*ready).stdout)["versions"] == found["versions"]


SCRIPT = {"Text A:\nthe proof": "A", "Text B:\nthe proof": "B", "Text A:": "A", "Text:\nthe proof": "4", "Text:": "1"}


def test_heads_learn_from_the_teacher_and_are_used_again(files):
    both = ("--in", files / "good.jsonl", "--in", files / "bad.jsonl", "--encoder", "fake", "--out")
    taught = ("--teacher", "fake", "--teacher-option", f"script={json.dumps(SCRIPT)}", "--judgements", 300)
    raters = ("--rater", "edu=edu", "--rater", "writing_style=qurater")
    found = json.loads(invoke(*both, files / "out", *taught, *raters).stdout)
    assert found["documents"] == 120
    assert found["unrated"] == {"edu": 0, "writing_style": 0}
    assert found["trained"]["edu"]["unanswered"] == found["trained"]["writing_style"]["unanswered"] == 0
    assert found["trained"]["writing_style"]["held_out_accuracy"] > 0.5
    rows = pl.read_parquet(files / "out" / "ratings.parquet").with_columns(good=pl.col("id").str.starts_with("good"))
    low, high = rows.group_by("good").agg(pl.col("edu", "writing_style").mean()).sort("good").rows(named=True)
    assert high["edu"] > low["edu"]
    assert high["writing_style"] > low["writing_style"]
    kept = [f"{name}={kind}:{found['trained'][name]['model']}" for name, kind in (("edu", "edu"), ("writing_style", "qurater"))]
    again = json.loads(invoke(*both, files / "o2", "--rater", kept[0], "--rater", kept[1]).stdout)
    assert again["versions"] == found["versions"]
    assert again["trained"] == {}


def test_models_are_named_by_directory_and_label(files):
    save_models(files / "models")
    named = {"surprise": "perplexity:language", "toxic": "classifier:classifier#LABEL_0", "edu": "edu:published"}
    raters = [
        part for name, model in named.items() for part in ("--rater", f"{name}={model.replace(':', f':{files}/models/')}")
    ]
    found = json.loads(invoke("--in", files / "good.jsonl", "--out", files / "out", "--max-tokens", 32, *raters).stdout)
    assert found["unrated"] == dict.fromkeys(named, 0)
    rows = pl.read_parquet(files / "out" / "ratings.parquet")
    assert rows["toxic"].is_between(0, 1).all()
    assert (rows["surprise"] >= 1).all()


def test_what_is_missing_is_said(files):
    def said(rater, *more):
        error = invoke("--in", files / "in.jsonl", "--out", files / "out", "--rater", rater, *more).exception
        assert isinstance(error, MidtrainError)
        return str(error)

    assert "--positives and --negatives" in said("q=fasttext")
    assert "--positives and --negatives" in said("q=dsir", "--positives", files / "good.jsonl")
    assert "NAME=KIND" in said("q=nonsense")
    assert "name the model" in said("q=perplexity")
    assert "criterion" in said("style=qurater", "--teacher", "fake")
    assert "expected local:DIR" in said("facts_and_trivia=qurater", "--teacher", "nobody")
    assert "no such head" in said(f"edu=edu:{files}/none.safetensors", "--encoder", "fake")
    assert "preset" in said(
        "q=fasttext", "--positives", files / "good.jsonl", "--negatives", files / "bad.jsonl", "--preset", "x"
    )
