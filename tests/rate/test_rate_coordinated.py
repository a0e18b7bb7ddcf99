"""Coordinated scores: equal to the published formulas where they were fitted, and the same for a document whatever comes later."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.coordination import Coordination
from midtrain_dagster.rate.coordinate import bucket_maximum, rank_aggregate, weighted_sum
from midtrain_dagster.rate.coordinated import fit, score

ENTRY = TypeAdapter(Coordination)
KINDS = {
    "bucket_maximum": ENTRY.validate_python({"kind": "bucket_maximum", "raters": ["one", "other"], "buckets": 5}),
    "rank_aggregate": ENTRY.validate_python({"kind": "rank_aggregate", "raters": ["one", "other"]}),
    "intersection": ENTRY.validate_python({"kind": "intersection", "at_least": {"one": 0.5, "other": 0.2}}),
    "weighted_sum": ENTRY.validate_python({"kind": "weighted_sum", "weights": {"one": 2.0, "other": -1.0}}),
}


def ratings(size: int = 300, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {"one": rng.normal(size=size).astype(np.float32), "other": rng.integers(0, 6, size).astype(np.float32)}
    )
    return frame.with_columns(one=pl.when(pl.int_range(pl.len()) % 17 == 0).then(None).otherwise("one"))


def test_where_it_was_fitted_it_is_the_formula():
    frame, lengths = ratings(), pl.Series(range(1, 301))
    found = {name: score(kind, fit(kind, frame, lengths), frame) for name, kind in KINDS.items()}
    assert found["bucket_maximum"].to_list() == bucket_maximum(frame, lengths, 5).to_list()
    assert np.allclose(found["rank_aggregate"], rank_aggregate(frame))
    expected = weighted_sum(frame, {"one": 2.0, "other": -1.0})
    assert found["weighted_sum"].is_null().to_list() == expected.is_null().to_list() == frame["one"].is_null().to_list()
    assert np.allclose(found["weighted_sum"].drop_nulls(), expected.drop_nulls())
    assert set(found["intersection"].drop_nulls()) == {0.0, 1.0}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_scale_survives_being_written_down(kind):
    frame = ratings()
    scale = fit(kind, frame)
    assert score(kind, json.loads(json.dumps(scale)), frame).equals(score(kind, scale, frame))


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(sorted(KINDS)), some=st.lists(st.integers(0, 299), min_size=1, unique=True), seed=st.integers(1, 5))
def test_a_documents_score_is_its_own_affair(name, some, seed):
    """Once fitted, whatever else is in the table changes nothing: rows taken away, rows of a new source beside them."""
    frame, kind = ratings(), KINDS[name]
    scale = fit(kind, frame)
    whole = score(kind, scale, frame)
    beside = pl.concat([frame[some], ratings(50, seed) * 100], how="vertical_relaxed")
    assert score(kind, scale, beside).head(len(some)).equals(whole[some])


@settings(deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=30))
def test_a_higher_score_never_ranks_lower(values):
    frame = ratings()
    new = pl.DataFrame({"one": sorted(values), "other": [0.0] * len(values)})
    for name in ("bucket_maximum", "rank_aggregate", "intersection"):
        found = score(KINDS[name], fit(KINDS[name], frame), new).to_list()
        assert found == sorted(found)


def test_what_is_not_there_is_said():
    with pytest.raises(MidtrainError, match="no rater other"):
        fit(KINDS["bucket_maximum"], ratings().drop("other"))
    with pytest.raises(MidtrainError, match="other has rated no document"):
        fit(KINDS["weighted_sum"], ratings().with_columns(other=pl.lit(None, pl.Float32)))
    with pytest.raises(ValueError, match="either weights, or learnt"):
        ENTRY.validate_python({"kind": "weighted_sum"})
