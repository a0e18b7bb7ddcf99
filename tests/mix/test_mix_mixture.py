import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix import shares as rules
from midtrain_dagster.mix.components import assign, available
from midtrain_dagster.mix.mixture import mixture
from midtrain_dagster.recipes.mixture import Component, Mixture


def stock(**tokens: int) -> pl.DataFrame:
    return pl.DataFrame({"component": list(tokens), "documents": [1] * len(tokens), "tokens": list(tokens.values())})


def unimax_by_the_paper(tokens: list[int], budget: float, cap: float) -> np.ndarray:
    granted = np.zeros(len(tokens))
    left = budget
    for rank, i in enumerate(np.argsort(tokens, kind="stable")):
        granted[i] = min(left / (len(tokens) - rank), tokens[i] * cap)
        left -= granted[i]
    return granted / granted.sum()


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=8), st.floats(0.1, 3.9))
def test_unimax_serves_the_smallest_first(tokens, passes):
    budget = max(1, int(sum(tokens) * passes))
    settings = Mixture(method="unimax", budget_tokens=budget)
    found = mixture(stock(**{f"c{i}": n for i, n in enumerate(tokens)}), settings)
    np.testing.assert_allclose(found["share"], unimax_by_the_paper(tokens, budget, 4.0), atol=1e-9)


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 100_000), min_size=1, max_size=6),
    st.sampled_from(["natural", "temperature", "unimax"]),
    st.floats(0.05, 4.0),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    st.integers(0, 2),
)
def test_shares_sum_to_one_caps_hold_and_the_budget_is_divided(tokens, method, passes, minimum, generals):
    components = [Component(name=n, general=i < generals) for i, n in enumerate(tokens)]
    budget = max(1, int(sum(tokens.values()) * passes))
    settings = Mixture(method=method, budget_tokens=budget, components=components, minimum_general_share=minimum)
    general = 4 * sum(tokens[c.name] for c in components if c.general)
    if minimum * budget > general:
        with pytest.raises(MidtrainError, match="infeasible"):
            mixture(stock(**tokens), settings)
        return
    found = mixture(stock(**tokens), settings)
    assert found["share"].sum() == pytest.approx(1)
    assert found["tokens"].sum() == budget
    assert (found["tokens"] <= 4 * found["available_tokens"] + 1).all()
    assert found.filter("general")["share"].sum() >= minimum - 1e-6


def test_temperature_flattens_natural_shares():
    found = mixture(stock(a=100, b=10_000), Mixture(method="temperature", temperature=2, budget_tokens=1000))
    assert found["share"].to_list() == pytest.approx([1 / 11, 10 / 11], abs=1e-9)  # capped: 4 × 100 / 1000 is above 1/11


def test_fixed_shares_leave_the_rest_to_the_others_by_their_tokens():
    components = [Component(name="a", share=0.6), Component(name="b"), Component(name="c")]
    found = mixture(stock(a=100, b=300, c=100), Mixture(components=components, budget_tokens=100))
    assert found["share"].to_list() == pytest.approx([0.6, 0.3, 0.1])
    assert found["tokens"].to_list() == [60, 30, 10]


def test_no_budget_means_the_most_without_repetition():
    found = mixture(stock(a=100, b=300), Mixture(components=[Component(name="a", share=0.5), Component(name="b", share=0.5)]))
    assert found["tokens"].to_list() == [100, 100]
    assert found["repetitions"].to_list() == pytest.approx([1, 1 / 3])


def test_an_infeasible_budget_is_refused_with_its_numbers():
    components = [Component(name="math", share=0.5), Component(name="web", share=0.5)]
    with pytest.raises(MidtrainError) as refused:
        mixture(stock(math=1_000, web=100_000), Mixture(components=components, budget_tokens=10_000))
    for number in ("5,000", "1,000", "4,000", "0.4000", "8,000", "5.0"):
        assert number in str(refused.value)


def test_the_general_minimum_of_fixed_shares_is_refused_not_bent():
    components = [Component(name="math", share=0.9), Component(name="web", share=0.1, general=True)]
    with pytest.raises(MidtrainError, match=r"web\) have 0\.1000, below the minimum 0\.3"):
        mixture(stock(math=1_000, web=1_000), Mixture(components=components, minimum_general_share=0.3))


def test_given_shares_replace_the_rule():
    found = mixture(stock(a=100, b=100), Mixture(method="unimax", budget_tokens=100), shares={"a": 0.9, "b": 0.1})
    assert found["share"].to_list() == pytest.approx([0.9, 0.1])
    with pytest.raises(MidtrainError, match="do not exist: z"):
        mixture(stock(a=100, b=100), Mixture(), shares={"a": 0.9, "z": 0.1})


def test_shares_of_a_plan_give_way_to_caps():
    settings = Mixture(
        budget_tokens=1000, max_repetition=2, components=[Component(name="a"), Component(name="b", general=True)]
    )
    with pytest.raises(MidtrainError, match="infeasible"):
        mixture(stock(a=100, b=5000), settings, shares={"a": 0.3, "b": 0.7})
    found = mixture(stock(a=100, b=5000), settings, shares={"a": 0.3, "b": 0.7}, bend=True)
    assert found["share"].to_list() == pytest.approx([0.2, 0.8])
    enough = mixture(stock(a=1000, b=5000), settings, shares={"a": 0.3, "b": 0.7}, bend=True)
    assert enough["share"].to_list() == pytest.approx([0.3, 0.7])


def test_a_linear_stage_moves_shares_in_a_straight_line():
    settings = Mixture.check(
        {
            "components": [{"name": "a", "share": 1.0}, {"name": "b", "share": 0.0}],
            "budget_tokens": 800,
            "transition_steps": 4,
            "stages": [
                {"name": "stable", "fraction": 0.5},
                {"name": "decay", "fraction": 0.5, "transition": "linear", "shares": {"a": 0.0, "b": 1.0}},
            ],
        },
        where="test",
    )
    found = mixture(stock(a=1_000, b=1_000), settings)
    assert found.filter(component="b")["share"].to_list() == pytest.approx([0, 0.125, 0.375, 0.625, 0.875])
    assert found.filter(component="b")["tokens"].to_list() == [0, 13, 38, 63, 88] or found["tokens"].sum() == 800
    assert found.group_by("stage").agg(pl.col("share").sum())["share"].to_list() == pytest.approx([1] * 5)


def test_language_quotas_hold_and_move_as_little_as_they_must():
    cells = pl.DataFrame(
        {"component": ["web", "web", "code"], "language": ["en", "de", "en"], "tokens": [900, 100, 500], "documents": [9, 1, 5]}
    )
    settings = Mixture.check(
        {"method": "natural", "budget_tokens": 900, "language_quotas": {"de": {"minimum": 0.2}}}, where="test"
    )
    found = mixture(cells, settings)
    assert found.filter(language="de")["tokens"].sum() == 180
    assert found["tokens"].sum() == 900
    assert found["share"].sum() == pytest.approx(1)
    assert found.filter(component="code")["tokens"].sum() == 300
    settings = Mixture.check(
        {"method": "natural", "budget_tokens": 900, "language_quotas": {"de": {"minimum": 0.5}}}, where="test"
    )
    with pytest.raises(MidtrainError, match="de: 450 to 900 wanted, at most 400"):
        mixture(cells, settings)


def test_the_first_condition_that_holds_takes_a_document():
    documents = pl.DataFrame({"id": ["1", "2", "3"], "domain": ["math", "web", None], "score": [3, 5, 1]})
    settings = Mixture(components=[Component(name="good", where="score > 4"), Component(name="math", where="domain = 'math'")])
    assert assign(documents, settings)["component"].to_list() == ["math", "good", None]
    with pytest.raises(MidtrainError, match="nonsense"):
        assign(documents, Mixture(components=[Component(name="x", where="nonsense > 1")]))


def test_available_counts_repetitions_and_leaves_out_what_has_no_component():
    documents = pl.DataFrame(
        {"component": ["a", "a", None, "b"], "tokens": [10, 20, 30, 40], "repetitions": [1.0, 2.5, 1.0, 0.0]}
    )
    assert available(documents).rows() == [("a", 2, 60)]


@pytest.mark.parametrize(
    "wrong", [{"components": [{"name": "a", "share": 0.4}]}, {"stages": [{"name": "s", "fraction": 0.5}]}, {"no_such_key": 1}]
)
def test_inconsistent_settings_are_refused(wrong):
    with pytest.raises(MidtrainError):
        Mixture.check(wrong, where="test")


def test_capped_gives_what_a_cap_takes_to_the_others():
    np.testing.assert_allclose(rules.capped(np.array([8.0, 1, 1]), np.array([0.5, 1, 1])), [0.5, 0.25, 0.25])
    with pytest.raises(ValueError, match="less than 1"):
        rules.capped(np.ones(2), np.array([0.3, 0.3]))
