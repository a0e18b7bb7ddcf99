"""Ways of finding shares, as functions: what they return sums to one and keeps its bounds, whatever they are given."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix import methods, online
from midtrain_dagster.mix.mixture import mixture
from midtrain_dagster.mix.propose import regress
from midtrain_dagster.recipes.mixture import Component, Mixture

NAMES = ["a", "b", "c", "d"]
shares = st.lists(st.floats(0.01, 1), min_size=4, max_size=4).map(
    lambda values: dict(zip(NAMES, [v / sum(values) for v in values], strict=True))
)


@given(shares, st.lists(st.floats(0, 1), min_size=4, max_size=4), st.floats(0, 0.9))
def test_bent_shares_keep_caps_and_the_general_minimum_or_fall_back(wanted, most, minimum):
    caps = dict(zip(NAMES, most, strict=True))
    rules = Mixture(components=[Component(name=n, general=n in "ab") for n in NAMES], minimum_general_share=minimum)
    fallback = dict.fromkeys(NAMES, 0.25)
    found = methods.within(wanted, caps, rules, fallback)
    if found == fallback:
        general, special = caps["a"] + caps["b"], caps["c"] + caps["d"]
        assert sum(most) < 1 + 1e-6 or general < minimum + 1e-6 or special < 1 - minimum + 1e-6 or wanted == fallback
        return
    assert sum(found.values()) == pytest.approx(1)
    assert all(found[n] <= caps[n] + 1e-9 for n in NAMES)
    assert found["a"] + found["b"] >= minimum - 1e-9


@given(shares, st.sampled_from(NAMES), st.floats(0.05, 0.9), st.floats(0, 1))
def test_an_anneal_moves_tokens_to_its_ingredient_within_its_cap(base, ingredient, part, cap):
    found = online.anneal_shares(base, ingredient, part, cap)
    assert sum(found.values()) == pytest.approx(1)
    assert found[ingredient] >= base[ingredient] - 1e-12
    assert found[ingredient] <= max(cap, base[ingredient]) + 1e-9
    others = [found[n] / base[n] for n in NAMES if n != ingredient]
    np.testing.assert_allclose(others, others[0])


@given(shares, st.lists(st.floats(-0.5, 0.5, allow_subnormal=False), min_size=4, max_size=4), st.floats(0.05, 0.9))
def test_combined_anneals_raise_what_helped(base, effects, part):
    by_name = dict(zip(NAMES, effects, strict=True))
    found = online.combine(base, by_name, part)
    assert sum(found.values()) == pytest.approx(1)
    if not any(e < 0 for e in effects):
        assert found == base
    assert all(found[n] < base[n] for n in NAMES if by_name[n] >= 0 and any(e < 0 for e in effects))


@given(shares, st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_sides_get_their_shares_and_the_rest_stays_in_proportion(base, target, general):
    fractions = {"target": {"a": 1.0}, "general": {"b": 1.0, "c": 0.9, "d": 0.1}}
    found = methods.by_side(base, target, general, fractions)
    assert sum(found.values()) == pytest.approx(1)
    assert found["a"] / (found["b"] + found["c"]) == pytest.approx(target / general)
    assert found["b"] / found["c"] == pytest.approx(base["b"] / base["c"])


@given(st.lists(st.floats(0, 5), min_size=3, max_size=3), st.floats(0.1, 2), st.floats(0, 0.2))
def test_doremi_keeps_weights_on_the_simplex_and_raises_the_largest_excess(excess, step, smoothing):
    found = online.doremi_step(np.full(3, 1 / 3), np.array(excess), step, smoothing)
    assert found.sum() == pytest.approx(1)
    assert found.min() >= smoothing / 3 - 1e-12
    assert found[int(np.argmax(excess))] == pytest.approx(found.max())


def test_rules_take_no_notice_of_the_recipe_s_own_shares():
    there = pl.DataFrame({"component": ["a", "b"], "documents": [1, 1], "tokens": [100, 900]})
    rules = Mixture(components=[Component(name="a", share=0.9), Component(name="b", share=0.1)], temperature=1e9)
    assert methods.by_rule("natural", there, rules) == pytest.approx({"a": 0.1, "b": 0.9})
    assert methods.by_rule("unimax", there, rules) == pytest.approx({"a": 0.5, "b": 0.5})
    assert methods.by_rule("temperature", there, rules) == pytest.approx({"a": 0.5, "b": 0.5}, abs=1e-6)


def test_bimix_knows_which_part_of_each_component_is_of_the_domain():
    rng = np.random.default_rng(0)
    x = rng.dirichlet(np.ones(3), 40)
    own = np.array([[1.0, 0.5, 0.0]])
    y = 3 * (x @ own[0]) ** -0.1
    frame = pl.DataFrame(x, schema=["p", "q", "r"])
    fitted = regress(frame, pl.DataFrame({"math": y}), "bimix", bootstrap=1, own=own)
    np.testing.assert_allclose(fitted.predict(x)[:, 0], y, rtol=1e-6)
    with pytest.raises(MidtrainError, match="no component is called math"):
        regress(frame, pl.DataFrame({"math": y}), "bimix", bootstrap=1)


cells = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["de", "en", "fr"]), st.integers(1, 5000)),
    min_size=1,
    max_size=6,
    unique_by=lambda cell: cell[:2],
)


def _tried(there: pl.DataFrame, rules: Mixture) -> tuple[str, pl.DataFrame | None]:
    try:
        return "", mixture(there, rules)
    except MidtrainError as refused:
        return str(refused), None


@settings(deadline=None, max_examples=30)
@given(cells, st.floats(0.1, 3), st.floats(0, 0.6), st.floats(0.2, 1))
def test_language_quotas_hold_or_are_refused_with_numbers(found, passes, least, most):
    there = pl.DataFrame(found, schema=["component", "language", "tokens"], orient="row").with_columns(documents=pl.lit(1))
    budget = max(1, int(there["tokens"].sum() * passes))
    quota = {"de": {"minimum": min(least, most), "maximum": most}}
    rules = Mixture.check({"method": "natural", "budget_tokens": budget, "language_quotas": quota}, where="test")
    refusal, table = _tried(there, rules)
    if table is None:
        assert "wanted, at most" in refusal
        return
    german = table.filter(pl.col("language") == "de")["tokens"].sum()
    slack = len(table)  # every row is rounded to a whole token
    assert min(least, most) * budget - slack <= german <= most * budget + slack
    assert abs(table["tokens"].sum() - budget) <= slack
    assert table["share"].sum() == pytest.approx(1)
    assert (table["tokens"] <= 4 * table["available_tokens"] + 1).all()
    whole = mixture(
        there.group_by("component").agg(pl.col("tokens", "documents").sum()), Mixture(method="natural", budget_tokens=budget)
    )
    both = table.group_by("component").agg(pl.col("tokens").sum()).join(whole.select("component", own="tokens"), on="component")
    assert (both["tokens"] - both["own"]).abs().max() <= slack
