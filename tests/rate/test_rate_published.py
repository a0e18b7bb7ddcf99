"""Published raters: checkpoints laid out as the hub has them, with random weights, scored as their model cards score."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.rate.published import PublishedQuRater, fineweb_edu
from midtrain_dagster.rate.qurater import CRITERIA

WORDS = [
    "the",
    "a",
    "river",
    "mill",
    "water",
    "wheel",
    "letter",
    "box",
    "stair",
    "sister",
    "map",
    "surveyor",
    "evening",
    "square",
    "baker",
    "oven",
    "smoke",
    "wood",
    "pear",
]


def frame(texts: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"id": [str(n) for n in range(len(texts))], "text": texts})


def texts_of(lengths: list[int], seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=length)) for length in lengths]


@pytest.fixture(scope="module")
def edu_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As HuggingFaceFW/fineweb-edu-classifier: BERT of arctic-embed-m with one regression output. Narrower, and two layers deep."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("fineweb-edu-classifier")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=512, do_lower_case=True)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        type_vocab_size=2,
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        classifier_dropout=0.0,
        layer_norm_eps=1e-12,
        num_labels=1,
        problem_type="regression",
        initializer_range=0.3,  # the published 0.02 would give every text nearly the same score
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_the_layout_is_that_of_the_hub(edu_checkpoint: Path) -> None:
    """So that the other tests speak of what will be downloaded."""
    config = json.loads((edu_checkpoint / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "LABEL_0"}
    assert (edu_checkpoint / "model.safetensors").exists()
    assert (edu_checkpoint / "tokenizer.json").exists()


def test_fineweb_edu_scores_are_those_of_its_model_card(edu_checkpoint: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    texts = [*texts_of([3, 40, 1, 700, 33, 509, 510, 511, 2000, 31, 64]), "unknown words, all of them"]
    tokenizer = AutoTokenizer.from_pretrained(edu_checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(edu_checkpoint).eval()
    inputs = tokenizer(texts, return_tensors="pt", padding="longest", truncation=True)
    assert inputs["input_ids"].shape[1] == 512
    with torch.inference_mode():
        expected = model(**inputs).logits.squeeze(-1).float().numpy()
    scores = fineweb_edu(model=str(edu_checkpoint)).score(frame(texts))
    assert expected.std() > 0.1
    assert np.allclose(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def qurater_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As princeton-nlp/QuRater-1.3B: a Llama with four outputs, no padding token, and a tokenizer that begins with <s>."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("QuRater-1.3B")
    pieces = {piece: n for n, piece in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    inner = Tokenizer(models.WordLevel(pieces, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        num_labels=4,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=None,
        initializer_range=0.3,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_qurater_scores_are_the_mean_over_windows_weighted_by_length(qurater_checkpoint: Path) -> None:
    """As QuRating's own annotation does it: no added token, windows of 512, one after another, each by itself here."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    texts = texts_of([5, 600, 512, 513, 1300, 30], seed=1)
    tokenizer = AutoTokenizer.from_pretrained(qurater_checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(qurater_checkpoint).eval()
    expected = []
    for text in texts:
        windows = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"]).split(512)
        with torch.inference_mode():
            logits = [model(input_ids=window[None]).logits[0].float().numpy() for window in windows]
        expected.append(np.average(logits, axis=0, weights=[len(window) for window in windows]))
    for number, criterion in enumerate(CRITERIA):
        rater = PublishedQuRater(criterion, criterion, str(qurater_checkpoint))
        scores = rater.score(frame([*texts, " \n", ""]))
        assert scores[:-2].std() > 0.1
        assert np.allclose(scores[:-2], np.array(expected)[:, number], rtol=1e-4, atol=1e-5), criterion
        assert np.isnan(scores[-2:]).all()
        assert len(rater.score(frame([]).cast(pl.String))) == 0


def test_criteria_are_the_models_outputs_in_its_order_and_have_versions_of_their_own(qurater_checkpoint: Path) -> None:
    assert list(CRITERIA) == ["writing_style", "required_expertise", "facts_and_trivia", "educational_value"]
    versions = {PublishedQuRater("q", criterion, str(qurater_checkpoint)).version for criterion in CRITERIA}
    assert len(versions) == 4


def test_a_model_with_other_outputs_is_no_qurater(edu_checkpoint: Path) -> None:
    with pytest.raises(MidtrainError, match="1 outputs, not QuRating's 4"):
        PublishedQuRater("q", "writing_style", str(edu_checkpoint))
