"""Published measurements: what laws fitted to them predict of runs that were kept apart.

The tables are no part of the project. They are looked for in MIDTRAIN_PUBLISHED, or in `shared/published` beside the checkout
or its parent; where they are not, made-up tables of the same layout and known laws take their place.
"""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from midtrain_dagster.mix.regression_files import fit_mixture_files
from midtrain_dagster.recipes.scaling import LawFit
from midtrain_dagster.scale.files import fit_law_files

ROOT = Path(__file__).parents[2]
PLACES = [Path(os.environ.get("MIDTRAIN_PUBLISHED", "/nowhere")), *(p / "shared" / "published" for p in ROOT.parents)]
FOLDER = next((p for p in PLACES if (p / "continual_pretraining_70m.csv").exists()), None)
published = pytest.mark.skipif(FOLDER is None, reason="the published tables are not here; set MIDTRAIN_PUBLISHED")


def law_of(runs: Path, out: Path, form: str = "auto", **points: list[float]) -> tuple[dict, pl.DataFrame]:
    pl.DataFrame(points).write_csv(out / "points.csv")
    report = fit_law_files(runs, out / "points.csv", out / "law", {}, {}, LawFit(form=form, bootstrap=20), 0.0)
    return report, pl.read_csv(out / "law" / "predictions.csv")


@published
@pytest.mark.parametrize("form", ["auto", "exponential", "adaptation"])
def test_continual_pretraining_critical_share_and_a_share_kept_apart(tmp_path, form):
    assert FOLDER is not None
    report, found = law_of(
        FOLDER / "continual_pretraining_70m.csv", tmp_path, form, general_share=[0.28515625], step=[10_000.0]
    )
    assert found["predicted_general_loss"][0] == pytest.approx(2.8721, abs=0.003)  # arXiv 2403.16952
    assert found["predicted_general_loss_low"][0] < 2.8721 < found["predicted_general_loss_high"][0]
    assert report["critical_share"]["general_share"] == pytest.approx(0.285, abs=0.005)


@published
@pytest.mark.parametrize("left_out", [0.25, 0.375])
def test_continual_pretraining_any_inner_share_left_out(tmp_path, left_out):
    assert FOLDER is not None
    table = pl.read_csv(FOLDER / "continual_pretraining_70m.csv")
    table.filter(pl.col("general_share").is_null() | (pl.col("general_share") != left_out)).write_csv(tmp_path / "runs.csv")
    kept = table.filter(pl.col("general_share") == left_out)
    _, found = law_of(
        tmp_path / "runs.csv", tmp_path, general_share=[left_out] * len(kept), step=kept["step"].cast(pl.Float64).to_list()
    )
    for side, most in (("general_loss", 0.006), ("domain_loss", 0.006)):
        assert (found[f"predicted_{side}"] - kept[side]).abs().mean() < most


@published
@pytest.mark.parametrize(("size", "least"), [("1m", 0.98), ("60m", 0.97)])
def test_regmix_mixtures_are_ranked_at_both_sizes(tmp_path, size, least):
    assert FOLDER is not None
    fit_mixture_files(
        [FOLDER / "regmix_train_mixture_1m.csv"], [FOLDER / "regmix_train_pile_loss_1m.csv"], tmp_path, ["pile_cc"],
        predict=FOLDER / f"regmix_test_mixture_{size}.csv", model="stack", key="index", share_prefix=None, bootstrap=1, kl=0.05, seed=0,
    )  # fmt: skip
    predicted = pl.read_csv(tmp_path / "predictions.csv")["predicted_pile_cc"]
    measured = pl.read_csv(FOLDER / f"regmix_test_pile_loss_{size}.csv")["metric/the_pile_pile_cc_val_loss"]
    assert spearmanr(predicted, measured).statistic >= least


def test_a_made_up_table_of_continual_pretraining(tmp_path):
    """General loss rises above its start and falls again, lower for larger shares; the start row has no share."""
    rows = [(None, 0, 2.87, 1.84)]
    rng = np.random.default_rng(0)

    def general(r: float, d: float) -> float:
        return float(2.80 + 0.2 * np.exp(-4 * r) * -np.expm1(-d / 1500) + 0.02 * (d / 1e3) ** -0.3)

    for r in (0.125, 0.25, 0.375, 0.5):
        for d in range(1000, 11_000, 1000):
            other = 1.35 + 0.1 * np.exp(-3 * (1 - r)) + 0.15 * (d / 1e3) ** -0.5
            rows.append((r, d, general(r, d) + rng.normal(0, 5e-4), other + rng.normal(0, 5e-4)))
    columns = ["general_share", "step", "general_loss", "domain_loss"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(tmp_path / "runs.csv")
    report, found = law_of(tmp_path / "runs.csv", tmp_path, general_share=[0.3], step=[10_000.0])
    assert found["predicted_general_loss"][0] == pytest.approx(general(0.3, 10_000), abs=0.003)
    truth = -np.log((2.87 - 2.80 - 0.02 * 10**-0.3) / (0.2 * -np.expm1(-10 / 1.5))) / 4
    assert report["critical_share"]["general_share"] == pytest.approx(truth, abs=0.01)


def test_columns_in_other_dress_are_understood(tmp_path):
    """Percent signs aside: other names, other case, the domain's share in place of the general one, a start for each size."""
    rows = []
    for n in (1e8, 2e8, 4e8):
        rows.append((1.0, 0.0, n, 3.0 - 0.1 * np.log2(n / 1e8)))
        for r in (0.1, 0.3, 0.5, 0.7, 0.9):
            for d in (1e9, 2e9, 4e9):
                rows.append((r, d, n, 2.2 + 0.2 * np.exp(-3 * (1 - r)) + 0.3 * (d / 1e9) ** -0.4 + 0.2 * (n / 1e8) ** -0.5))
    table = pl.DataFrame(rows, schema=["Domain_Share", "Tokens", "Parameters", "general_loss"], orient="row")
    table.write_csv(tmp_path / "runs.csv")
    report, found = law_of(
        tmp_path / "runs.csv", tmp_path, "adaptation", domain_share=[0.4, 0.4], tokens=[4e9, 4e9], size=[2e8, 8e8]
    )
    truth = [2.2 + 0.2 * np.exp(-3 * 0.6) + 0.3 * 4**-0.4 + 0.2 * s**-0.5 for s in (2, 8)]
    np.testing.assert_allclose(found["predicted_general_loss"], truth, atol=0.02)
    assert report["columns"]["tokens"] == "Tokens"


def test_rows_without_a_share_get_no_prediction_and_percent_is_refused(tmp_path):
    from midtrain_dagster.errors import MidtrainError

    rows = [(r, d, 2 + 0.2 * np.exp(-3 * r) + 0.01 * d / 1e3) for r in (0.1, 0.2, 0.4, 0.6) for d in (1e3, 2e3)]
    pl.DataFrame(rows, schema=["share", "step", "loss"], orient="row").write_csv(tmp_path / "runs.csv")
    pl.DataFrame({"share": [None, 0.3], "steps": [0.0, 1500.0]}).write_csv(tmp_path / "points.csv")
    settings = LawFit(form="exponential", bootstrap=3)
    fit_law_files(tmp_path / "runs.csv", tmp_path / "points.csv", tmp_path / "o", {}, {}, settings, None)
    found = pl.read_csv(tmp_path / "o" / "predictions.csv")
    assert found["predicted_loss"][0] is None
    assert found["predicted_loss"][1] == pytest.approx(2 + 0.2 * np.exp(-0.9) + 0.015, abs=0.005)
    pl.DataFrame({"share": [30.0], "step": [1000.0]}).write_csv(tmp_path / "points.csv")
    with pytest.raises(MidtrainError, match="divide percentages by 100"):
        fit_law_files(tmp_path / "runs.csv", tmp_path / "points.csv", tmp_path / "o", {}, {}, settings, None)
    pl.DataFrame({"share": [0.3]}).write_csv(tmp_path / "points.csv")
    with pytest.raises(MidtrainError, match="needs tokens"):
        fit_law_files(tmp_path / "runs.csv", tmp_path / "points.csv", tmp_path / "o", {}, {}, settings, None)
