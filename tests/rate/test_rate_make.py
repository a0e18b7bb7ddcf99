"""Entries of a project file become raters."""

import pytest
from pydantic import TypeAdapter

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.raters import FastTextTraining, Rater
from midtrain_dagster.rate.fasttext import train
from midtrain_dagster.rate.learn import FILE, from_documents
from midtrain_dagster.rate.make import make

ENTRY = TypeAdapter(Rater)


def test_a_fasttext_entry_needs_its_model_first(tmp_path):
    entry = ENTRY.validate_python(
        {"kind": "fasttext", "name": "q", "positives": {"condition": "domain = 'math'"}, "negatives": {"condition": "true"}}
    )
    with pytest.raises(MidtrainError, match="not trained yet"):
        make(entry)
    good, bad = [f"proof {n} lemma" for n in range(60)], [f"sale {n} buy" for n in range(60)]
    model = train(good, bad, FastTextTraining(dim=4, bucket=100), tmp_path / "m.bin")
    assert make(entry, learnt=model.path).version == model.version
    ready = ENTRY.validate_python({"kind": "fasttext", "name": "r", "model": str(model.path)})
    assert make(ready).version == model.version


def test_what_was_learnt_from_examples_rates(tmp_path):
    entry = ENTRY.validate_python({"kind": "dsir", "target": {"condition": "a"}, "raw": {"condition": "b"}, "min_words": 1})
    with pytest.raises(MidtrainError, match="not trained yet"):
        make(entry)
    learnt = from_documents(entry, lambda side: ["apple"] if side.condition == "a" else ["stone"], tmp_path)
    rater = make(entry, learnt=tmp_path / FILE["dsir"])
    assert (rater.name, rater.version) == ("dsir", learnt.version)
    assert learnt.about == {"target documents": 1, "raw documents": 1}


def test_a_head_wants_its_encoder(tmp_path):
    style = ENTRY.validate_python({"kind": "qurater", "name": "style", "criterion": "writing_style"})
    with pytest.raises(MidtrainError, match="encoder"):
        make(style, learnt=tmp_path / "head.safetensors")
