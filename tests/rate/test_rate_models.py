"""Model raters on tiny models, DSIR, and heads that learn from a teacher."""

import numpy as np
import polars as pl
import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.raters import HeadTraining
from midtrain_dagster.rate import dsir, edu, qurater
from midtrain_dagster.rate.batching import length_buckets, rounded
from midtrain_dagster.rate.classifier import Classifier
from midtrain_dagster.rate.heads import Head, HeadRater
from midtrain_dagster.rate.network import Network
from midtrain_dagster.rate.perplexity import Perplexity
from midtrain_dagster.rate.published import fineweb_edu

WORDS = [f"w{n}" for n in range(50)]


def frame(texts: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"id": [str(n) for n in range(len(texts))], "text": texts}, schema={"id": pl.String, "text": pl.String})


def random_texts(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 60))) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, **{w: n + 2 for n, w in enumerate(WORDS)}}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")


@pytest.fixture(scope="module")
def language_model(tokenizer, tmp_path_factory):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    path = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(LlamaConfig(vocab_size=52, max_position_embeddings=128, **sizes)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def classifier_model(tokenizer, path, labels: int):
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=52, max_position_embeddings=64, num_labels=labels, **sizes)
    BertForSequenceClassification(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_perplexity_is_that_of_each_text_alone(language_model, tokenizer):
    import torch
    from transformers import AutoModelForCausalLM

    texts = [*random_texts(20), "", "w1"]
    rater = Perplexity("ppl", str(language_model), max_tokens=48)
    scores = rater.score(frame(texts))
    assert np.isnan(scores[-2:]).all()
    model = AutoModelForCausalLM.from_pretrained(language_model).eval()
    for row in (0, 7, 19):
        ids = torch.tensor([tokenizer(texts[row], truncation=True, max_length=48)["input_ids"]])
        with torch.inference_mode():
            assert scores[row] == pytest.approx(float(model(input_ids=ids, labels=ids).loss.exp()), rel=1e-4)
    shuffled = np.random.default_rng(0).permutation(len(texts))
    assert np.array_equal(rater.score(frame([texts[n] for n in shuffled])), scores[shuffled], equal_nan=True)
    assert rater.version == Perplexity("other", str(language_model), max_tokens=48).version
    assert rater.version != Perplexity("ppl", str(language_model), max_tokens=47).version


def test_a_regression_gives_its_value_and_a_classifier_a_probability(tokenizer, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification

    texts = [*random_texts(12), " "]
    one = fineweb_edu("edu", str(classifier_model(tokenizer, tmp_path / "one", 1)), max_tokens=64)
    scores = one.score(frame(texts))
    assert np.isnan(scores[-1])
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "one").eval()
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([tokenizer(texts[3])["input_ids"]])).logits[0, 0]
    assert scores[3] == pytest.approx(float(expected), rel=1e-3, abs=1e-5)
    two = Classifier("two", str(classifier_model(tokenizer, tmp_path / "two", 2)), max_tokens=64)
    chances = two.score(frame(texts))[:-1]
    assert ((chances > 0) & (chances < 1)).all()
    classifier_model(tokenizer, tmp_path / "three", 3)
    with pytest.raises(MidtrainError, match="LABEL_2"):
        Classifier("three", str(tmp_path / "three"))
    other = Classifier("three", str(tmp_path / "three"), label="LABEL_2", max_tokens=64).score(frame(texts))
    assert not np.isnan(other[:-1]).any()


def test_a_missing_model_is_one_clear_error(tmp_path):
    with pytest.raises(MidtrainError, match="cannot be loaded"):
        Perplexity("ppl", str(tmp_path))


def test_every_row_comes_in_one_batch_of_its_own_width():
    lengths = [3, 0, 33, 64, 32, 5]
    found = {int(row): width for rows, width in length_buckets(lengths, 64) for row in rows}
    assert found == {0: 32, 2: 64, 3: 64, 4: 32, 5: 32}
    assert all(len(rows) * width <= 64 for rows, width in length_buckets(lengths, 64))
    assert rounded(np.array([123456.7, -0.00123456789, 0, np.nan]))[:3].tolist() == pytest.approx([123460, -0.0012346, 0])


def test_a_model_reads_texts_of_like_length_together(tokenizer, tmp_path, monkeypatch):
    """However long its neighbours, a row is padded by less than 32 tokens, and a batch holds as many rows as its tokens allow."""
    network = Network(str(classifier_model(tokenizer, tmp_path, 1)), batch_tokens=256)
    read, plain = [], network._network

    def recorded(input_ids, attention_mask):
        read.append((tuple(input_ids.shape), attention_mask.sum(dim=1).tolist()))
        return plain(input_ids=input_ids, attention_mask=attention_mask)

    recorded.config = plain.config
    monkeypatch.setattr(network, "_network", recorded)
    lengths = [64, 1, 40, 5, 64, 33, 2, 8, 60, 1, 7, 9, 4]
    network.outputs([[2] * length for length in lengths], most=64)
    assert sorted(length for _, rows in read for length in rows) == sorted(lengths)
    assert [shape for shape, _ in read] == [(8, 32), (4, 64), (1, 64)]
    assert all(0 <= width - length < 32 for (_, width), rows in read for length in rows)


def test_dsir_is_the_formula_and_pulls_towards_the_target(tmp_path):
    rater = dsir.fit("dsir", ["apple pear", "apple"], ["stone sand"], buckets=10_000, min_words=2)
    rater.save(tmp_path / "weights.npy")
    assert dsir.Dsir.load("dsir", tmp_path / "weights.npy", 2).version == rater.version
    target = dsir.counts(["apple pear", "apple"], 10_000)
    assert target.sum() == 4  # apple, pear, apple pear, apple
    scores = rater.score(frame(["apple pear apple", "stone sand", "apple"]))
    assert scores[0] > 0 > scores[1]
    assert np.isnan(scores[2])
    only = np.log(1 / 3 + 1e-8) - np.log(1e-8)  # stone, sand, stone sand: each a third of the raw words, none of the target's
    assert scores[1] == pytest.approx(-3 * only, rel=1e-5)
    with pytest.raises(MidtrainError, match="no words"):
        dsir.fit("dsir", [""], ["x"])


class Bag:
    """Embeds a text by which of fifty words it has."""

    version = "bag"

    def encode(self, texts):
        counts = np.array([[text.split().count(word) for word in WORDS] for text in texts], dtype=np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


QUICK = HeadTraining(lr=3e-3, epochs=40, batch=64, held_out=0.2)


def quality(text: str) -> float:
    """The teacher's secret: the mean number of the words, 0 to 5."""
    return float(np.mean([int(word[1:]) for word in text.split()])) / 10


def test_a_head_learns_the_teachers_scores_and_says_how_well(tmp_path):
    texts = random_texts(600, seed=2)
    trained = edu.train(texts, [quality(t) for t in texts], Bag(), QUICK)
    assert trained.held_out.examples + trained.trained_on == 600
    assert trained.held_out.spearman > 0.8
    assert trained.held_out.mean_absolute_error < 0.5
    trained.head.save(tmp_path / "head.safetensors")
    rater = HeadRater("edu", Bag(), Head.load(tmp_path / "head.safetensors"))
    scores = rater.score(frame(["w49 w48 w47", "w0 w1 w2", ""]))
    assert scores[0] > scores[1]
    assert np.isnan(scores[2])
    again = edu.train(texts, [quality(t) for t in texts], Bag(), QUICK)
    assert again.head.version == trained.head.version
    with pytest.raises(MidtrainError, match="between 0 and 5"):
        edu.train(["a"], [7], Bag(), QUICK)


def test_agreement_is_worked_out_by_hand():
    found = edu.agreement(np.array([2.6, 1.0, 5.6, 0.4]), np.array([3, 1, 5, 4.0]))
    assert found.exact == 0.75
    assert found.f1_at_3 == pytest.approx(2 * 2 / (2 + 3))
    assert found.mean_absolute_error == pytest.approx((0.4 + 0 + 0.6 + 3.6) / 4)


class BiasedJudge:
    """Prefers quality, and whatever it is shown first; now and then says nothing."""

    def prefer(self, pairs, criterion):
        assert criterion in qurater.CRITERIA
        margin = [8 * (quality(a) - quality(b)) + 0.5 for a, b in pairs]
        return [None if a.startswith("w7 ") else float(1 / (1 + np.exp(-m))) for m, (a, _) in zip(margin, pairs, strict=True)]


def test_a_scale_is_learnt_from_pairs_and_biases_are_reported():
    texts = random_texts(300, seed=4)
    drawn = qurater.pairs(300, 1200, seed=1)
    assert len({tuple(sorted(pair)) for pair in drawn.tolist()}) == 1200
    assert (drawn[:, 0] != drawn[:, 1]).all()
    judgements = qurater.judged(texts, drawn, "writing_style", BiasedJudge())
    assert 0 < len(judgements) < 1200
    found = qurater.train(texts, judgements, Bag(), QUICK)
    assert found.held_out > 10
    assert found.held_out_accuracy > 0.75
    assert 0.01 < found.position_bias < 0.2
    assert abs(found.judged_length_bias) < 0.15
    assert abs(found.length_bias) < 0.4
    with pytest.raises(MidtrainError, match="none is confident"):
        qurater.train(texts, judgements.with_columns(preference=pl.lit(0.5)), Bag(), QUICK)
    with pytest.raises(MidtrainError, match="only 3 pairs"):
        qurater.pairs(3, 4, seed=0)
