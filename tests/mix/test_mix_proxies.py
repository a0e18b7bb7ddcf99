"""Designs of proxy runs and what they are packed from."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix import proxies
from midtrain_dagster.mix.tokens import TokenStore
from midtrain_dagster.recipes.mixture import Component, Mixture
from midtrain_dagster.recipes.scaling import Scaling


def there(*tokens: int) -> pl.DataFrame:
    """Components a, b, c … of which everything is in the sample."""
    names = [chr(ord("a") + i) for i in range(len(tokens))]
    return pl.DataFrame({"component": names, "documents": 1, "tokens": list(tokens), "sampled_tokens": list(tokens)})


def section(**proxy: object) -> Scaling:
    return Scaling.check({"proxy_mixtures": 5, "held_out": 2, "proxy": {"tokens": [500, 1000], "ladder": 2, **proxy}}, "test")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(300, 5000), min_size=2, max_size=5), st.integers(0, 5))
def test_every_run_of_a_design_can_be_filled_and_sums_to_one(tokens, seed):
    supply = there(*tokens)
    chosen = section(max_repetition=4).model_copy(update={"seed": seed})
    total = sum(tokens)
    names = supply["component"].to_list()
    table = proxies.runs(supply, {n: t / total for n, t in zip(names, tokens, strict=True)}, chosen)
    np.testing.assert_allclose(table.select(names).sum_horizontal(), 1)
    limits = proxies.caps(supply, 1000, 4)
    for name in names:
        assert table.filter(pl.col("tokens") == 1000)[name].max() <= limits[name] + 1e-9
    assert table["role"].value_counts(sort=True).sort("role").rows() == [
        ("fit", 5), ("held_out", 2), ("ladder", 2), ("repeat", 2)
    ]  # fmt: skip
    assert table["run"].n_unique() == len(table)


def test_a_ladder_repeats_the_first_mixtures_at_other_lengths():
    table = proxies.runs(there(3000, 3000), {"a": 0.5, "b": 0.5}, section())
    first, ladder = table.filter(role="fit").head(2), table.filter(role="ladder")
    assert ladder["tokens"].to_list() == [500, 500]
    assert ladder["a"].to_list() == first["a"].to_list()


def test_a_baseline_that_the_documents_cannot_fill_is_refused_with_the_numbers():
    with pytest.raises(MidtrainError, match=r"a: 90.0% wanted, at most 40.0%"):
        proxies.runs(there(100, 5000), {"a": 0.9, "b": 0.1}, section())


def test_the_recipe_s_shares_include_its_stages():
    settings = Mixture.check(
        {
            "components": [{"name": "a", "share": 0.2}, {"name": "b", "share": 0.8}],
            "budget_tokens": 1000,
            "stages": [{"name": "one", "fraction": 0.5}, {"name": "two", "fraction": 0.5, "shares": {"a": 1.0}}],
        },
        where="test",
    )
    found = proxies.recipe_shares(there(3000, 3000), settings)
    assert found == {"a": pytest.approx(0.6), "b": pytest.approx(0.4)}


def test_a_sample_does_not_depend_on_order_and_still_tells_the_whole(make_documents, word_tokenizer, tmp_path):
    frame = make_documents([10] * 40, ["a"] * 30 + ["b"] * 10).with_columns(repetitions=pl.lit(1.0))
    few = proxies.sample(frame, 6, seed=1)
    assert few["id"].to_list() == proxies.sample(frame.reverse(), 6, seed=1)["id"].to_list()
    assert few["component"].value_counts().sort("component").rows() == [("a", 6), ("b", 6)]
    store = TokenStore(tmp_path / "tokens", word_tokenizer)
    store.add(few)
    found = proxies.supply(store.count(few))
    assert found["sampled_tokens"].to_list() == [66, 66]  # ten words and the end of text
    assert found["tokens"].to_list() == pytest.approx([330, 110], rel=0.05)


def test_a_packed_run_has_the_shares_it_was_designed_with(make_documents, word_tokenizer, tmp_path):
    frame = make_documents([9] * 200, ["a", "b"] * 100).with_columns(repetitions=pl.lit(1.0))
    store = TokenStore(tmp_path / "tokens", word_tokenizer)
    store.add(frame)
    packed = proxies.pack_run(
        store.count(frame), {"a": 0.7, "b": 0.3}, 1000, store, tmp_path / "run", section(sequence_length=20), 0
    )
    lengths = np.bincount(packed.spans[:, 3], weights=packed.spans[:, 2])
    assert lengths.sum() == pytest.approx(1000, abs=20)
    assert lengths[0] / lengths.sum() == pytest.approx(0.7, abs=0.02)


def test_caps_of_a_candidate_are_those_of_the_proxies_and_of_the_run():
    rules = Mixture(
        budget_tokens=10_000, max_repetition=4, components=[Component(name="a", max_repetition=2), Component(name="b")]
    )
    found = proxies.candidate_caps(there(1000, 2000), rules, {"a": 1.0, "b": 0.5})
    assert found == {"a": 0.2, "b": 0.5}


def test_domain_weights_sum_to_one_and_keep_the_target_s():
    found = proxies.domain_weights(["math", "code", "prose"], ["math"], 0.6)
    np.testing.assert_allclose(found, [0.6, 0.2, 0.2])
