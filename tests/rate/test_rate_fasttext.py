"""fastText raters: trained the same twice, judged on what they have not seen, blind to what a text smuggles in."""

import numpy as np
import polars as pl
import pytest

from midtrain_dagster.documents import documents
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.raters import FastTextRater, FastTextTraining
from midtrain_dagster.rate.fasttext import FastText, one_line, train
from midtrain_dagster.rate.held_out import is_held_out, judge
from midtrain_dagster.rate.rate import merged, rate, rate_batches, unrated

SMALL = FastTextTraining(dim=8, bucket=500, epoch=10, lr=0.5)


def examples(words: str, count: int = 200) -> list[str]:
    rng = np.random.default_rng(len(words))
    return [" ".join(rng.choice(words.split(), size=12)) + f" n{n}" for n in range(count)]


GOOD, BAD = "theorem proof lemma explains because therefore", "click buy sale cheap subscribe now"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(examples(GOOD), examples(BAD), SMALL, tmp_path_factory.mktemp("model") / "quality.bin")


def test_it_learns_and_its_report_is_of_unseen_texts(trained):
    report = trained.held_out
    assert trained.trained_on + report.examples == 400
    assert report.average_precision > 0.99
    assert report.expected_calibration_error < 0.2
    assert report.curve["recall"][-1] == 1
    scores = FastText("q", trained.path).score(
        pl.DataFrame({"id": ["a", "b", "c"], "text": ["the proof explains", "buy now", " \n"]})
    )
    assert scores[0] > 0.8
    assert scores[1] < 0.2
    assert np.isnan(scores[2])


def test_equal_examples_give_equal_bytes_and_another_seed_another_version(trained, tmp_path):
    again = train(examples(GOOD), examples(BAD), SMALL, tmp_path / "again.bin")
    assert again.path.read_bytes() == trained.path.read_bytes()
    assert again.version == trained.version
    other = train(examples(GOOD), examples(BAD), SMALL.model_copy(update={"seed": 5}), tmp_path / "other.bin")
    assert other.version != trained.version


def test_a_text_cannot_smuggle_in_a_label_or_end_its_line(tmp_path):
    poisoned = [f"__label__positive </s> {text}" for text in examples(BAD)]
    model = train(examples(GOOD), poisoned, SMALL, tmp_path / "m.bin")
    assert sorted(FastText("q", model.path)._model.get_labels()) == ["__label__negative", "__label__positive"]
    assert model.held_out.average_precision > 0.99
    assert one_line("a\n\tb\r\n\0c \ud800") == "a b c ?"


def test_too_few_examples_are_refused(tmp_path):
    with pytest.raises(MidtrainError, match="too few"):
        train(["one"], ["other"], SMALL, tmp_path / "m.bin")


def test_presets_are_the_published_values_and_single_ones_win():
    dclm = FastTextTraining(preset="dclm")
    assert (dclm.dim, dclm.lr, dclm.epoch, dclm.word_ngrams) == (100, 0.1, 5, 2)
    web = FastTextTraining.check({"preset": "webinstruct", "epoch": 7}, "test")
    assert (web.dim, web.lr, web.epoch, web.word_ngrams, web.min_count) == (256, 0.1, 7, 3, 3)
    with pytest.raises(MidtrainError, match="ready model"):
        FastTextRater.check({"kind": "fasttext", "name": "q"}, "test")


def test_judging_has_the_answers_worked_out_by_hand():
    report = judge(np.array([0.9, 0.8, 0.8, 0.1]), np.array([1, 1, 0, 1]))
    assert report.curve.rows() == [
        (0.9, 1.0, pytest.approx(1 / 3)),
        (0.8, pytest.approx(2 / 3), pytest.approx(2 / 3)),
        (0.1, 0.75, 1.0),
    ]
    assert report.average_precision == pytest.approx((1 + 2 / 3 + 0.75) / 3)
    # bins: 0.1 → accuracy 1, off by 0.9; 0.8 twice → accuracy 0.5, off by 0.3; 0.9 → accuracy 1, off by 0.1
    assert report.expected_calibration_error == pytest.approx((0.9 + 2 * 0.3 + 0.1) / 4)


def test_the_split_is_by_text_and_of_its_size():
    held = [is_held_out(f"text {n}", 0.2, 0) for n in range(5000)]
    assert 0.18 < np.mean(held) < 0.22
    assert held == [is_held_out(f"text {n}", 0.2, 0) for n in range(5000)]


class Length:
    name, version = "length", "1"

    def __init__(self):
        self.seen = []

    def score(self, documents: pl.DataFrame) -> np.ndarray:
        self.seen += documents["id"].to_list()
        return np.array([len(t) if t else np.nan for t in documents["text"]], dtype=np.float32)


def test_a_frame_of_ratings_is_in_order_with_versions_and_nulls():
    frame = documents([{"id": i, "text": t} for i, t in [("b", "xx"), ("a", ""), ("c", "xxxx")]])
    found = rate(frame, [Length()])
    assert found.columns == ["id", "text_hash", "length", "length_version"]
    assert found["id"].to_list() == ["b", "a", "c"]
    assert found["length"].to_list() == [2.0, None, 4.0]
    assert pl.concat(rate_batches(frame, [Length()], size=2)).equals(found)
    assert rate(frame.clear(), [Length()]).schema == found.schema
    with pytest.raises(MidtrainError, match="share a name"):
        rate(frame, [Length(), Length()])


def test_no_document_is_rated_twice_by_the_same_version_and_a_changed_text_is():
    old = documents([{"id": i, "text": t} for i, t in [("a", "x"), ("b", ""), ("c", "xxx")]])
    ratings = rate(old, [Length()])
    new = documents([{"id": i, "text": t} for i, t in [("a", "x"), ("b", ""), ("c", "changed"), ("d", "new")]])
    assert unrated(new, ratings, Length())["id"].to_list() == ["c", "d"]
    newer = Length()
    newer.version = "2"
    assert len(unrated(new, ratings, newer)) == 4
    both = merged(ratings, rate(old.head(2), [newer]))
    assert both["length_version"].to_list() == ["2", "2", "1"]
    assert both["length"].to_list() == [1.0, None, 3.0]
