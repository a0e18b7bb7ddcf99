"""Learning rates against the published check values, and the borders of phases."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.train import schedule
from midtrain_dagster.train.plan import BatchStage, DataStage, Phase, TrainingPlan

QUARTERS = (0, 0.25, 0.5, 0.75, 1)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", [1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [1, 0.8536, 0.5, 0.1464, 0]),
        ("sqrt", [1, 0.5, 0.2929, 0.1340, 0]),
        ("power", [1, 0.5, 0.2929, 0.1340, 0]),
    ],
)
def test_decays(shape: str, expected: list[float]) -> None:
    (decay,) = schedule.lay_out([Phase(shape, start=1, end=0.2)], 100, peak=10.0)
    rates = np.array([decay.rate(round(p * 100)) for p in QUARTERS])
    assert (rates - 2) / 8 == pytest.approx(expected, abs=5e-5)


def test_exponential_in_both_forms() -> None:
    (decay,) = schedule.lay_out([Phase("exponential", end=0.01)], 100, peak=1.0)
    rates = [decay.rate(round(p * 100)) for p in QUARTERS]
    assert rates == pytest.approx([1, 0.3162, 0.1, 0.0316, 0.01], abs=5e-5)
    half = 100 * np.log(2) / np.log(100)
    (halving,) = schedule.lay_out([Phase("half_life", half_life=float(half))], 100, peak=1.0)
    assert [halving.rate(round(p * 100)) for p in QUARTERS] == pytest.approx(rates)


def test_warmup_stable_decay_on_half_open_intervals() -> None:
    phases = [Phase("warmup", steps=10), Phase("constant"), Phase("sqrt", share=0.2)]
    stretches = schedule.lay_out(phases, 100, peak=3.0)
    assert [(s.begin, s.end) for s in stretches] == [(0, 10), (10, 80), (80, 100)]
    rates = [s.rate(step) for s in stretches for step in range(s.begin, s.end)]
    assert rates[0] == 0
    assert rates[5] == 1.5
    assert rates[10:81] == [3.0] * 71
    assert 0 < rates[99] < rates[98]


def test_a_run_may_begin_at_the_checkpoints_own_rate() -> None:
    (decay,) = schedule.lay_out([Phase("linear")], 10, peak=3e-4, start=6.15e-5)
    assert decay.rate(0) == 6.15e-5
    (rewarmed, _) = schedule.lay_out([Phase("warmup", steps=5), Phase("linear")], 10, peak=3e-4, start=6e-5)
    assert rewarmed.rate(0) == pytest.approx(6e-5)


def test_a_phase_without_a_step_still_hands_over() -> None:
    stretches = schedule.lay_out([Phase("warmup", share=0.01), Phase("linear")], 10, peak=1.0)
    assert stretches[1].rate(0) == 1.0


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(1, 500))
def test_shares_cover_every_step_once(lengths: list[float], steps: int) -> None:
    shares = np.array(lengths) / sum(lengths)
    stretches = schedule.lay_out([Phase("constant", share=float(s)) for s in shares], steps, peak=1.0)
    assert stretches[0].begin == 0
    assert stretches[-1].end == steps
    assert all(a.end == b.begin for a, b in itertools.pairwise(stretches))


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([Phase("linear", share=0.5)], "cover 50 of 100"),
        ([Phase("linear", steps=200)], "take 200 steps"),
        ([Phase("linear"), Phase("linear")], "only one phase"),
        ([Phase("exponential")], "needs `end` above 0"),
        ([], "no phases"),
    ],
)
def test_schedules_that_fit_nothing(phases: list[Phase], message: str) -> None:
    with pytest.raises(MidtrainError, match=message):
        schedule.lay_out(phases, 100, peak=1.0)


def test_batches_grow_and_the_rate_follows() -> None:
    stages = (BatchStage(0.5, 16),)
    assert schedule.batch_offsets(64, 4, stages).tolist() == [0, 4, 8, 12, 16, 20, 24, 28, 32, 48, 64]
    plan = TrainingPlan(
        "", "", "", peak_learning_rate=1.0, schedule=(Phase("constant"),), batch_sequences=4, batch_stages=stages
    )
    assert schedule.timetable(plan, 64).rates.tolist() == [1.0] * 8 + [2.0] * 2
    assert schedule.batch_offsets(10, 4).tolist() == [0, 4, 8, 10]
    assert schedule.batch_offsets(10, 4, steps=4).tolist() == [0, 4, 8, 12, 16]


def test_a_phase_ends_with_its_data_stage() -> None:
    """Slow, then fast: the rate turns where the data turn, also where the batch grows and steps are no share of the data."""
    plan = TrainingPlan(
        "", "", "", peak_learning_rate=1.0, batch_sequences=4, batch_stages=(BatchStage(0.5, 16),), batch_rate_rule="none",
        data_stages=(DataStage("general", 0.25), DataStage("rising", 0.125), DataStage("rising", 0.125), DataStage("best", 0.5)),
        schedule=(Phase("warmup", steps=2), Phase("constant", until="general"), Phase("linear", end=0.7, until="rising"),
                  Phase("sqrt", until="best")),
    )  # fmt: skip
    times = schedule.timetable(plan, 64)
    assert times.offsets.tolist() == [0, 4, 8, 12, 16, 20, 24, 28, 32, 48, 64]
    assert times.rates.tolist() == pytest.approx([0, 0.5, 1, 1, 1, 0.925, 0.85, 0.775, 0.7, 0.7 * (1 - 0.5**0.5)])
    with pytest.raises(MidtrainError, match="no stage final"):
        schedule.timetable(replace(plan, schedule=(Phase("linear", until="final"),)), 64)
    with pytest.raises(MidtrainError, match="ends with step 4, the run has 10"):
        schedule.timetable(replace(plan, schedule=(Phase("linear", until="general"),)), 64)
    with pytest.raises(MidtrainError, match="read once"):
        schedule.timetable(replace(plan, epochs=2.0), 64)


def test_a_random_order_stays_inside_the_stages() -> None:
    from midtrain_dagster.train.batches import sequences_between

    order = sequences_between(0, 80, 40, seed=3, borders=(10, 30, 40))
    for epoch in (order[:40], order[40:]):
        assert [sorted(part.tolist()) for part in np.split(epoch, [10, 30])] == [
            list(range(10)), list(range(10, 30)), list(range(30, 40)),
        ]  # fmt: skip
    assert order[:40].tolist() != order[40:].tolist()
    assert order[:10].tolist() != list(range(10))
