"""`midtrain synthesize` on plain files: documents, what became of every request, and an estimate first."""

import json

import polars as pl
import pytest
from typer.testing import CliRunner

from midtrain_dagster.commands import synthesize
from midtrain_dagster.errors import MidtrainError

RIVER = (
    "The Volga is the longest river in Europe. It rises in the Valdai Hills northwest of Moscow and flows 3,531 km to the "
    "Caspian Sea. Eleven of the twenty largest cities of Russia lie in its basin, part {}."
)
GOOD = "Question: How long is the Volga?\nAnswer: The Volga flows 3,531 km to the Caspian Sea."


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": f"p{i}", "text": RIVER.format(i)}) + "\n" for i in range(12)))
    return path


def invoke(*arguments):
    import typer

    app = typer.Typer()
    app.callback()(lambda: None)
    synthesize.register(app)
    said = CliRunner().invoke(app, ["synthesize", *map(str, arguments)], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout.strip().splitlines()[-1]), said.stderr


def script(answer):
    return json.dumps({"": answer})


def test_documents_outcomes_and_requests_are_written(rows, tmp_path):
    out = tmp_path / "out"
    told, said = invoke(
        "questions", "--in", rows, "--out", out, "--teacher", "fake", "--teacher-option", f"script={script(GOOD)}"
    )
    assert (told["parents"], told["documents"], told["requests"]) == (12, 12, 12)
    assert "before the run: 12 parents will take about 12 requests" in said
    assert len(pl.read_parquet(out / "documents.parquet")) == 12
    assert pl.read_parquet(out / "outcomes.parquet")["accepted"].all()
    assert set(pl.read_parquet(out / "requests.parquet")["reply"]) == {GOOD}


def test_an_estimate_stops_after_its_sample(rows, tmp_path):
    arguments = ["questions", "--in", rows, "--out", tmp_path / "out", "--teacher", "fake", "-o", "sample=3", "--estimate"]
    prices = "prices={prompt: 1000000, completion: 0}"
    options = ["--teacher-option", f"script={script(GOOD)}", "--teacher-option", prices, "--teacher-option", "budget=1"]
    told, _ = invoke(*arguments, *options)
    assert told["estimate"]["said"].startswith("no estimate for 12 parents: the budget has 1 left")
    told, _ = invoke(*arguments, *options[:-1], "budget=100000")
    assert told["estimate"]["parents"] == 12
    assert told["estimate"]["cost"] > 0
    assert not (tmp_path / "out" / "documents.parquet").exists()


def test_a_dead_endpoint_writes_nothing(rows, tmp_path):
    dead = [
        "--teacher",
        "openai:http://127.0.0.1:9/v1#m",
        "--teacher-option",
        "api_key_env=null",
        "--teacher-option",
        "retries=0",
    ]
    with pytest.raises(MidtrainError, match="answered none of"):
        invoke("questions", "--in", rows, "--out", tmp_path / "out", *dead)
    assert not (tmp_path / "out" / "documents.parquet").exists()
