"""Bringing raters together: answers worked out by hand."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.rate.coordinate import (
    agreement,
    bucket_maximum,
    intersection,
    learn_weights,
    missed,
    percentile_buckets,
    rank_aggregate,
    spearman,
    weighted_sum,
)


def test_buckets_hold_equal_shares_of_tokens():
    scores = pl.Series([0.1, 0.2, 0.3, 0.4, None, float("nan")])
    assert percentile_buckets(scores, buckets=4).to_list() == [0, 1, 2, 3, None, None]
    heavy = pl.Series([300, 100, 100, 100, 5, 5])
    assert percentile_buckets(scores, heavy, buckets=2).to_list() == [0, 1, 1, 1, None, None]
    assert percentile_buckets(pl.Series([1.0] * 5), buckets=20).n_unique() == 1


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.integers(1, 20))
def test_buckets_rise_with_the_score(scores, buckets):
    found = percentile_buckets(pl.Series(scores), buckets=buckets).to_list()
    assert all(0 <= bucket < buckets for bucket in found)
    assert [b for _, b in sorted(zip(scores, found, strict=True))] == sorted(found)


def test_the_highest_bucket_of_any_rater_counts():
    ratings = pl.DataFrame({"one": [1.0, 2.0, 3.0, 4.0], "other": [9.0, 1.0, 2.0, None]})
    assert bucket_maximum(ratings, buckets=4).to_list() == [3, 1, 2, 3]


def test_intersection_is_unknown_only_where_a_missing_rating_decides():
    ratings = pl.DataFrame({"one": [1.0, 1.0, 0.0], "other": [1.0, None, None]})
    assert intersection(ratings, {"one": 0.5, "other": 0.5}).to_list() == [True, None, False]


def test_weighted_sum_and_ranks():
    ratings = pl.DataFrame({"one": [0.0, 2.0, None], "other": [5.0, 5.0, 5.0]})
    assert weighted_sum(ratings, {"one": 2.0, "other": 1.0}).to_list() == [-2.0, 2.0, None]
    with pytest.raises(MidtrainError, match="third"):
        weighted_sum(ratings, {"third": 1.0})
    assert rank_aggregate(pl.DataFrame({"one": [1.0, 2.0, 3.0], "other": [3.0, 2.0, None]})).to_list() == [0.5, 0.25, 1.0]


def test_spearman_is_one_for_any_rising_function_and_undefined_for_a_constant():
    x = np.array([1.0, 5.0, 2.0, 9.0])
    assert spearman(x, np.exp(x)) == pytest.approx(1)
    assert spearman(x, -x) == pytest.approx(-1)
    assert spearman(np.array([1, 2, 2, 3]), np.array([1, 2, 3, 4])) == pytest.approx(0.9486833)
    assert np.isnan(spearman(x, np.ones(4)))


def test_weights_are_learnt_from_runs_of_a_known_law():
    """The metric is a bowl over the simplex with its floor at (.6, .3, .1)."""
    rng = np.random.default_rng(3)
    shares = rng.dirichlet(np.ones(3), size=60)
    best = np.array([0.6, 0.3, 0.1])
    metric = 3 + ((shares - best) ** 2).sum(axis=1) + rng.normal(0, 0.005, 60)
    runs = pl.DataFrame({"a": shares[:, 0], "b": shares[:, 1], "c": shares[:, 2], "loss": metric})
    learnt = learn_weights(runs, "loss")
    assert sum(learnt.weights.values()) == pytest.approx(1)
    assert np.allclose(list(learnt.weights.values()), best, atol=0.06)
    assert learnt.held_out_spearman > 0.95
    with pytest.raises(MidtrainError, match="ten proxy runs"):
        learn_weights(runs.head(9), "loss")


def test_the_report_finds_the_document_that_raters_quarrel_about():
    ids = [f"d{n:02}" for n in range(20)]
    one = [float(n) for n in range(20)]
    other = [20.0 if n == 0 else float(n) for n in range(20)]
    report = agreement(pl.DataFrame({"id": ids, "one": one, "other": other}), ["one", "other"], samples=1)
    assert report.correlation["documents"].to_list() == [20]
    assert 0.5 < report.correlation["spearman"][0] < 1
    assert report.samples["id"].to_list() == ["d00"]
    assert report.samples["gap"][0] == pytest.approx(0.95)
    assert report.added.rows() == [("one", 2, 1), ("other", 2, 1)]


def test_whose_word_the_coordinated_best_hangs_on():
    """Of the two best documents one is there by `one` alone, the other by `other` alone; `silent` adds nothing."""
    one = [float(n) for n in range(18)] + [30.0, 0.5]
    other = [float(17 - n) for n in range(18)] + [0.5, 30.0]
    frame = pl.DataFrame({"one": one, "other": other, "silent": [1.0] * 20})
    frame = frame.with_columns(best=bucket_maximum(frame.select("one", "other"), buckets=20).cast(pl.Float64))
    found = missed(frame, "best", ["one", "other", "silent"])
    assert found.select("rater", "best", "only").rows() == [("one", 2, 1), ("other", 2, 1), ("silent", 2, 0)]
    assert np.isnan(found["spearman"][2])
