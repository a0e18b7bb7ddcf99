import numpy as np
import polars as pl
import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix.mixture import mixture
from midtrain_dagster.mix.plots import shares
from midtrain_dagster.recipes.mixture import Mixture
from midtrain_dagster.recipes.scaling import Goal, LawFit
from midtrain_dagster.scale.fit import fit
from midtrain_dagster.scale.measurements import points
from midtrain_dagster.scale.plan import plan
from midtrain_dagster.scale.plots import iso_loss, law_fit

COLUMNS = {"share": "share", "tokens": "tokens"}


@pytest.fixture(scope="module")
def laws():
    frame = pl.DataFrame(
        [(r, d) for r in (0.1, 0.2, 0.3, 0.4, 0.6) for d in (1e3, 8e3)], schema=["share", "tokens"], orient="row"
    )
    settings = LawFit(form="exponential", bootstrap=4)
    at, other = points(frame, COLUMNS), points(frame, COLUMNS, complement=True)
    y = 2.5 + 0.2 * np.exp(-4 * at.share)
    z = 1.0 + 0.5 * np.exp(-2 * other.share) + 0.1 * (other.tokens < 8e3)
    return fit(at, y, settings), fit(other, z, settings), at, other, y


def test_the_plan_meets_its_bounds_with_the_fewest_tokens(laws):
    general, domain, at, other, _ = laws
    start = 2.5 + 0.2 * np.exp(-4 * 0.25)
    found = plan(general, domain, at, other, start, Goal(maximum_general_rise=0.0))
    assert found.feasible
    assert found.tokens == 1e3
    assert found.general_share == pytest.approx(0.25, abs=0.02)  # the least general share that keeps general loss
    strict = plan(general, domain, at, other, start, Goal(maximum_general_rise=0.0, maximum_domain_loss=1.13))
    assert strict.feasible
    assert strict.tokens == 8e3
    impossible = plan(general, domain, at, other, start, Goal(maximum_general_rise=0.0, maximum_domain_loss=0.9))
    assert not impossible.feasible
    assert "nearest" in impossible.reason
    with pytest.raises(MidtrainError, match="no bound"):
        plan(general, domain, at, other, start, Goal())


def test_figures_are_drawn(laws, tmp_path):
    general, _, at, _, y = laws
    table = mixture(pl.DataFrame({"component": ["a", "b"], "tokens": [10, 30]}), Mixture())
    for name, figure in {"fit": law_fit(general, at, y), "iso": iso_loss(general, at), "mix": shares(table)}.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
