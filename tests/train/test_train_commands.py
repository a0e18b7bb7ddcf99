"""`midtrain mix`, `train` and `extend-context` on plain files, one after another."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from midtrain_dagster.cli import application


def said(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(application(), [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A model with its tokenizer, documents, and a plan of a few steps."""
    from midtrain_dagster.train.base import make_model
    from midtrain_dagster.train.tokenizer import train_tokenizer

    texts = [f"Add {i} and {i + 1}: the sum is {2 * i + 1}. " * 4 for i in range(120)]
    size = train_tokenizer(texts, 300, tmp_path / "model")
    make_model(tmp_path / "model", size, 2, 32, 4, 64)
    lines = [json.dumps({"id": str(i), "text": text, "source": "sums"}) for i, text in enumerate(texts)]
    (tmp_path / "documents.jsonl").write_text("\n".join(lines))
    (tmp_path / "plan.yaml").write_text("batch_sequences: 4\npeak_learning_rate: 0.003\nprecision: fp32\nsteps: 6\n")
    return tmp_path


def test_from_documents_to_a_longer_context(files: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = files / "model"
    packed = said(
        "mix", "--in", files / "documents.jsonl", "--tokenizer", model, "--sequence-length", 64, "--out", files / "packed"
    )
    assert packed["sequences"] > 24
    where = ["--model", model, "--sequences", files / "packed", "--validation", files / "packed", "--out", files / "trained"]
    trained = said("train", "--plan", files / "plan.yaml", *where)
    assert trained["steps"] == 6
    assert trained["validation"]["general"]["after"]["loss"] < trained["validation"]["general"]["before"]["loss"]
    micro = json.loads((files / "trained" / "plan.json").read_text())["micro_batch"]
    assert micro in (1, 2, 4)  # measured
    assert said("train", "--plan", files / "plan.yaml", *where) == trained  # complete already
    longer = said(
        "extend-context", "--model", files / "trained/model", "--method", "yarn", "--factor", 4, "--out", files / "long"
    )
    assert longer["context"] == 256
    assert AutoModelForCausalLM.from_pretrained(files / "long").config.rope_parameters["rope_type"] == "yarn"


def test_a_recipe_trains_on_files_with_its_stages(files: Path) -> None:
    """`until` refers to the recipe's stages, whose fractions hold for the sequences that are given."""
    said(
        "mix",
        "--in",
        files / "documents.jsonl",
        "--tokenizer",
        files / "model",
        "--sequence-length",
        64,
        "--out",
        files / "packed",
    )
    where = ["--model", files / "model", "--sequences", files / "packed", "--out", files / "trained"]
    trained = said("train", "--recipe", "core-cognitive:scaled-scratch", *where)
    rates = [json.loads(line)["learning_rate"] for line in (files / "trained/steps.jsonl").read_text().splitlines()]
    assert len(rates) == trained["steps"]
    turn = max(step for step, rate in enumerate(rates) if rate == max(rates))
    assert turn / len(rates) == pytest.approx(0.6, abs=1.5 / len(rates))
