"""Every kind of rater through its assets, on a tiny project: a scripted teacher, the fake encoder, models of a few weights."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml

from midtrain_dagster import definitions as composed
from midtrain_dagster.project import project as projects
from resources.lake import Lake

SCRIPT = {
    "Text A:\nNotebook": "A",
    "Text B:\nNotebook": "The letter is B.",
    "Text A:": "A",
    "Text:\nNotebook": "4",
    "Text:": "Score: 1",
}
HEAD = {"lr": 0.01, "epochs": 20, "held_out": 0.3}
SIDES = {"target": {"condition": "source = 'code'"}, "raw": {"condition": "true"}}
RATERS = [
    {"name": "edu", "kind": "edu", "model": None, "annotations": 200, "training": HEAD},
    {"name": "style", "kind": "qurater", "criterion": "writing_style", "pairs": 300, "training": HEAD},
    {"name": "near_code", "kind": "dsir", "min_words": 5, **SIDES},
    {"name": "surprise", "kind": "perplexity", "model": "models/language", "max_tokens": 32},
    {"name": "toxic", "kind": "classifier", "model": "models/classifier", "max_tokens": 32},
]
NAMES = ["codelike", *(str(rater["name"]) for rater in RATERS)]
KEYS = [
    *(f"{stage}/{source}" for stage in ("raw_documents", "clean_documents") for source in ("prose", "code")),
    *("rater/codelike", "rater/edu", "rater/style"),
    *("document_ratings/prose", "document_ratings/code", "rating_report"),
]


def save_models(root: Path) -> None:
    """A language model and a classifier over four words, with random weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    torch.manual_seed(0)
    inner = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "the": 2, "Notebook": 3}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=4, max_position_embeddings=32, **sizes)).save_pretrained(root / "language")
    bert = BertConfig(vocab_size=4, max_position_embeddings=32, num_labels=2, **sizes)
    BertForSequenceClassification(bert).save_pretrained(root / "classifier")
    for name in ("language", "classifier"):
        tokenizer.save_pretrained(root / name)


def materialized(file: Path) -> dg.ExecuteInProcessResult:
    definitions = composed.definitions(projects.load(file), file.parent)
    job = definitions.resolve_implicit_global_asset_job_def()
    with dg.instance_for_test() as instance:
        return job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(key.split("/")) for key in KEYS])


@pytest.fixture
def rated(project: Path) -> tuple[Path, Lake, dg.ExecuteInProcessResult]:
    save_models(project.parent / "models")
    values = yaml.safe_load(project.read_text())
    values["raters"] += RATERS
    values["teacher"]["script"] = SCRIPT | values["teacher"]["script"]
    project.write_text(yaml.safe_dump(values, sort_keys=False))
    result = materialized(project)
    return project, Lake(project.parent, "lake"), result


def test_every_rater_rates_through_its_asset_and_none_twice(rated: tuple[Path, Lake, dg.ExecuteInProcessResult]) -> None:
    project, lake, result = rated
    assert result.success
    ratings = lake.tables.read("document_ratings")
    assert set(ratings["source"]) == {"prose", "code"}
    for name in NAMES:
        assert ratings[name].null_count() == 0, name
        assert ratings[f"{name}_version"].n_unique() == 1, name
    means = ratings.group_by("source").agg(pl.col("edu", "style", "near_code").mean()).sort("source").rows(named=True)
    code, prose = means
    assert prose["edu"] > code["edu"] + 1  # the teacher gave 4 and 1
    assert prose["style"] > code["style"]
    assert code["near_code"] > prose["near_code"]
    checks = {check.check_name: check for check in result.get_asset_check_evaluations() if check.asset_key.path[-1] in NAMES}
    assert checks["agrees_with_teacher"].passed
    report = lake.tables.read("rating_report")
    assert len(report) == len(NAMES) * (len(NAMES) - 1) // 2
    again = materialized(project)
    assert all(
        event.step_materialization_data.materialization.metadata["up to date"].value
        for event in again.get_asset_materialization_events()
    )
