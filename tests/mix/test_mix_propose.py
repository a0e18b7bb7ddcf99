import numpy as np
import polars as pl
import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix.dirichlet import design, swarm
from midtrain_dagster.mix.online import doremi_step, microanneals
from midtrain_dagster.mix.propose import confirmed, propose, regress
from midtrain_dagster.mix.regression import MODELS, bimix, score
from midtrain_dagster.mix.regression_files import fit_mixture_files

NAMES = ["a", "b", "c", "d"]


def law(x):
    return 2 + np.exp(x @ np.array([-3.0, -0.5, 0.3, 0.2]))


def runs(count=80, noise=0.0, seed=0):
    x = swarm(np.full(4, 0.25), count, seed=seed)
    return x, law(x) + np.random.default_rng(seed).normal(0, noise, count)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_models_rank_mixtures_they_have_not_seen(model):
    x, y = runs(120)
    new, expected = runs(60, seed=1)
    assert score(MODELS[model](x, y)(new), expected).spearman > (0.9 if model in ("linear", "lightgbm", "bimix") else 0.98)


def test_bimix_recovers_its_exponent():
    x, _ = runs()
    y = 3 * np.maximum(x[:, 0], 1e-3) ** -0.1
    np.testing.assert_allclose(bimix(x, y, own=0)(x), y, rtol=1e-6)


def test_a_proposal_is_supported_by_a_real_effect_and_not_by_noise():
    base = dict.fromkeys(NAMES, 0.25)
    x, y = runs(noise=0.01)
    found = propose(regress(pl.DataFrame(x, schema=NAMES), pl.DataFrame({"l": y}), bootstrap=3), base, kl=0.0, candidates=2000)
    assert found.supported
    assert found.shares["a"] > 0.6
    assert sum(found.shares.values()) == pytest.approx(1)
    noise = np.random.default_rng(1).normal(3, 0.1, len(x))
    found = propose(regress(pl.DataFrame(x, schema=NAMES), pl.DataFrame({"l": noise}), bootstrap=3), base, candidates=2000)
    assert not found.supported
    assert "do not support a change" in found.reason


def test_a_design_holds_caps_and_repeats_the_natural_mixture():
    table = design({"a": 0.7, "b": 0.2, "c": 0.1}, 6, 2, 3, caps={"c": 0.3}, seed=1)
    assert table["role"].to_list() == ["fit"] * 6 + ["held_out"] * 2 + ["repeat"] * 3
    np.testing.assert_allclose(table.select("a", "b", "c").sum_horizontal(), 1)
    assert table["c"].max() <= 0.3 + 1e-9
    repeats = table.filter(role="repeat")
    assert repeats["a"].to_list() == pytest.approx([0.7] * 3)
    assert repeats["seed"].to_list() == [1, 2, 3]


def test_doremi_raises_what_lags_behind_the_reference():
    found = doremi_step(np.full(2, 0.5), np.array([1.0, 0.0]))
    expected = 0.999 * np.array([np.e, 1]) / (np.e + 1) + 0.0005
    np.testing.assert_allclose(found, expected)


def test_microanneals_pair_runs_with_their_baseline():
    table = pl.DataFrame({"run": ["base", "math"], "baseline": [None, "base"], "gsm": [28.5, 63.5]})
    assert microanneals(table, ["gsm"], {"gsm": 2.0}).row(0) == ("math", "base", "gsm", 35.0, 2.0, True)


def test_confirmation_needs_more_than_the_spread_of_repeats():
    won, gain, width = confirmed([2.89, 2.91], [2.99, 3.01])
    assert won
    assert gain == pytest.approx(0.1)
    assert width == pytest.approx(4.3027 * 0.01 * np.sqrt(2), rel=1e-3)  # t of 2 degrees of freedom
    assert not confirmed([2.96, 2.98], [2.99, 3.01])[0]
    with pytest.raises(MidtrainError, match="at least two"):
        confirmed([2.9], [3.0, 3.0])


def test_runs_of_the_same_seeds_are_compared_in_pairs():
    won, gain, width = confirmed([2.9, 3.4, 2.4], [3.0, 3.5, 2.52])  # seeds differ by more than mixtures do
    assert won
    assert gain == pytest.approx(0.32 / 3)
    assert width == pytest.approx(4.3027 * np.std([0.1, 0.1, 0.12], ddof=1) / np.sqrt(3), rel=1e-3)


def test_tables_are_joined_by_their_key_and_names_shortened(tmp_path):
    x, y = runs(40)
    index = pl.Series("index", range(40))
    pl.DataFrame(x, schema=[f"train_{n}" for n in NAMES]).with_columns(index).write_csv(tmp_path / "m.csv")
    losses = pl.DataFrame({"metric/a_val_loss": y, "metric/b_val_loss": y + 1}).with_columns(index)
    losses.reverse().write_csv(tmp_path / "l.csv")
    options = {"predict": tmp_path / "m.csv", "model": "exponential", "key": "index", "share_prefix": None}
    options |= {"bootstrap": 2, "kl": 0.05, "seed": 0}
    report = fit_mixture_files([tmp_path / "m.csv"], [tmp_path / "l.csv"], tmp_path / "o", ["a"], **options)
    assert report["components"] == NAMES
    assert report["held_out"]["a"]["spearman"] > 0.98
    np.testing.assert_allclose(pl.read_csv(tmp_path / "o" / "predictions.csv")["predicted_a"], y, atol=0.05)
    with pytest.raises(MidtrainError, match="no loss of 'z'; there are a, b"):
        fit_mixture_files([tmp_path / "m.csv"], [tmp_path / "l.csv"], tmp_path / "o", ["z"], **options)


def test_one_table_of_shares_and_losses_and_a_table_with_short_names_to_predict(tmp_path):
    x, y = runs(40)
    whole = pl.DataFrame(x, schema=[f"share_{n}" for n in NAMES]).with_columns(pl.Series("loss", y), step=pl.lit(1000))
    whole.write_csv(tmp_path / "runs.csv")
    pl.DataFrame(x, schema=NAMES).with_columns(seed=pl.lit(1)).write_csv(tmp_path / "new.csv")
    one = [tmp_path / "runs.csv"]
    options = {"predict": tmp_path / "new.csv", "key": "index", "share_prefix": "share_", "bootstrap": 2, "kl": 0.0, "seed": 0}
    report = fit_mixture_files(one, one, tmp_path / "o", [], model="mixing_law", **options)
    assert report["components"] == NAMES
    assert list(report["held_out"]) == ["loss"]
    np.testing.assert_allclose(pl.read_csv(tmp_path / "o" / "predictions.csv")["predicted_loss"], y, atol=0.05)
    pl.DataFrame(x[:, :3], schema=NAMES[:3]).write_csv(tmp_path / "new.csv")
    with pytest.raises(MidtrainError, match="lacks share_d"):
        fit_mixture_files(one, one, tmp_path / "o", [], model="mixing_law", **options)
