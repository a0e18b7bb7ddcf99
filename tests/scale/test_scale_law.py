import json

import numpy as np
import polars as pl
import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.scaling import LawFit
from midtrain_dagster.scale.critical import critical_share
from midtrain_dagster.scale.files import fit_law_files
from midtrain_dagster.scale.fit import fit
from midtrain_dagster.scale.measurements import areas, points

COLUMNS = {"share": "share", "tokens": "tokens"}


def grid(shares=(0.1, 0.2, 0.3, 0.4, 0.6), tokens=(1e3, 2e3, 4e3, 8e3)) -> pl.DataFrame:
    return pl.DataFrame([(r, d) for r in shares for d in tokens], schema=["share", "tokens"], orient="row")


def exponential_loss(share, tokens=None):
    return 2.5 + 0.2 * np.exp(-4 * np.asarray(share))


def test_exponential_law_recovers_its_constants_and_the_critical_share():
    frame = grid()
    law = fit(points(frame, COLUMNS), exponential_loss(frame["share"]), LawFit(form="exponential", bootstrap=5))
    assert len(law.pieces) == 4
    for piece in law.parameters():
        assert piece["c"] == pytest.approx(2.5, abs=2e-3)
        assert piece["b"] == pytest.approx(0.2, rel=0.05)
        assert piece["k"] == pytest.approx(4, rel=0.05)
    bound = float(exponential_loss(0.25))
    found = critical_share(law, lambda r: points(pl.DataFrame({"share": r, "tokens": np.full(len(r), 8e3)}), COLUMNS), bound)
    assert found.general_share == pytest.approx(0.25, abs=1e-3)
    assert not found.at_boundary


def test_the_exponential_law_interpolates_tokens_and_refuses_to_go_beyond():
    frame = grid()
    law = fit(points(frame, COLUMNS), exponential_loss(frame["share"]), LawFit(form="exponential", bootstrap=0))
    inside = points(pl.DataFrame({"share": [0.25], "tokens": [3e3]}), COLUMNS)
    assert law.predict(inside)[0] == pytest.approx(float(exponential_loss(0.25)), abs=1e-3)
    with pytest.raises(MidtrainError, match="between the measured 1000 and 8000"):
        law.predict(points(pl.DataFrame({"share": [0.25], "tokens": [9e3]}), COLUMNS))


@pytest.mark.parametrize("form", ["d_cpt", "adaptation"])
def test_joint_forms_predict_a_share_and_a_length_they_have_not_seen(form):
    truth = {
        "d_cpt": lambda r, d: 1.5 + 0.4 * r**0.5 / (d / 1e3) ** 0.3 + 0.3 / (r + 0.2) ** 0.5,
        "adaptation": lambda r, d: 2.0 + 0.3 * np.exp(-3 * r) * -np.expm1(-d / 1500) + 0.5 * (d / 1e3) ** -0.2,
    }[form]
    frame = grid(tokens=(1e3, 2e3, 4e3, 6e3, 8e3))
    law = fit(
        points(frame, COLUMNS),
        truth(frame["share"].to_numpy(), frame["tokens"].to_numpy()),
        LawFit(form=form, bootstrap=0, starts=10),
    )
    new = pl.DataFrame({"share": [0.25, 0.5], "tokens": [5e3, 1e4]})
    expected = truth(new["share"].to_numpy(), new["tokens"].to_numpy())
    np.testing.assert_allclose(law.predict(points(new, COLUMNS)), expected, atol=5e-3)


def test_intervals_cover_what_is_measured():
    frame = grid()
    rng = np.random.default_rng(0)
    truth = exponential_loss(frame["share"].to_numpy())
    law = fit(
        points(frame, COLUMNS), truth * np.exp(rng.normal(0, 0.002, len(truth))), LawFit(form="exponential", bootstrap=30)
    )
    low, high = law.interval(points(frame, COLUMNS))
    again = truth * np.exp(rng.normal(0, 0.002, len(truth)))
    assert ((low <= again) & (again <= high)).mean() >= 0.7
    assert (high - low < 0.05).all()


def test_what_a_form_needs_must_be_there():
    frame = grid()
    with pytest.raises(MidtrainError, match="needs lr_area, annealing_area"):
        fit(points(frame, COLUMNS), exponential_loss(frame["share"]), LawFit(form="annealing"))
    with pytest.raises(MidtrainError, match="no column 'nope'"):
        points(frame, {"share": "nope"})


def test_areas_of_a_schedule():
    s1, s2 = areas(np.array([1.0, 1.0, 0.5, 0.0]), decay=0.5)
    np.testing.assert_allclose(s1, [1, 2, 2.5, 2.5])
    np.testing.assert_allclose(s2, [0, 0, 0.5, 0.5 + 0.75])


def test_the_command_reads_a_table_and_predicts_both_losses(tmp_path):
    frame = grid().with_columns(
        general_loss=pl.Series(exponential_loss(grid()["share"])),
        domain_loss=pl.Series(exponential_loss(1 - grid()["share"])),
    )
    start = pl.DataFrame(
        {"share": [None], "tokens": [0.0], "general_loss": [float(exponential_loss(0.25))], "domain_loss": [2.7]}
    )
    pl.concat([start.cast({"share": pl.Float64}), frame]).write_csv(tmp_path / "runs.csv")
    pl.DataFrame({"share": [0.3], "tokens": [8e3]}).write_csv(tmp_path / "points.csv")
    settings = LawFit(form="exponential", bootstrap=3)
    report = fit_law_files(tmp_path / "runs.csv", tmp_path / "points.csv", tmp_path / "out", {}, {}, settings, 0.0)
    predicted = pl.read_csv(tmp_path / "out" / "predictions.csv")
    assert predicted["predicted_general_loss"][0] == pytest.approx(float(exponential_loss(0.3)), abs=1e-3)
    assert predicted["predicted_domain_loss"][0] == pytest.approx(float(exponential_loss(0.7)), abs=1e-3)
    assert report["critical_share"]["general_share"] == pytest.approx(0.25, abs=1e-3)
    assert json.loads((tmp_path / "out" / "law.json").read_text())["laws"]["general_loss"]["constraints"]["falls_in_share"]
