"""Mixture regressions and laws on published runs: `python benchmarks/mixing.py DIRECTORY`.

The directory holds the RegMix tables (arXiv 2407.01492) and the continual pre-training of Pythia-70M (arXiv 2403.16952).
"""

import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

from midtrain_dagster.mix.propose import normalised
from midtrain_dagster.mix.regression import MODELS, score
from midtrain_dagster.recipes.scaling import LawFit
from midtrain_dagster.scale.critical import critical_share
from midtrain_dagster.scale.fit import fit
from midtrain_dagster.scale.measurements import Points, points
from midtrain_dagster.scale.validate import leave_out

OWN = "train_the_pile_pile_cc"
TARGET = "metric/the_pile_pile_cc_val_loss"
COLUMNS = {"share": "general_share", "tokens": "step"}


def runs(folder: Path, part: str, size: str) -> tuple[np.ndarray, np.ndarray]:
    shares = pl.read_csv(folder / f"regmix_{part}_mixture_{size}.csv").drop("index")
    return normalised(shares), pl.read_csv(folder / f"regmix_{part}_pile_loss_{size}.csv")[TARGET].to_numpy()


def mixtures(folder: Path) -> None:
    print("| model | Spearman 1M | Spearman 60M | MAE 1M, nats | seconds |\n|---|---|---|---|---|")
    shares, losses = runs(folder, "train", "1m")
    own = pl.read_csv(folder / "regmix_train_mixture_1m.csv").drop("index").columns.index(OWN)
    for name, model in MODELS.items():
        started = time.process_time()
        predict = model(shares, losses, own=own) if name == "bimix" else model(shares, losses)
        seconds = time.process_time() - started
        small, large = (score(predict(x), y) for x, y in (runs(folder, "test", size) for size in ("1m", "60m")))
        print(f"| {name} | {small.spearman:.4f} | {large.spearman:.4f} | {small.mae:.4f} | {seconds:.1f} |")


def laws(folder: Path) -> None:
    table = pl.read_csv(folder / "continual_pretraining_70m.csv")
    start = table.filter(pl.col("general_share").is_null())["general_loss"][0]
    measured = table.filter(pl.col("general_share").is_not_null())
    at = points(measured, COLUMNS, start)
    last = float(measured["step"].max())  # type: ignore[arg-type]

    def at_end(shares: np.ndarray) -> Points:
        return points(pl.DataFrame({"general_share": shares, "step": np.full(len(shares), last)}), COLUMNS, start)

    kept = at_end(np.array([0.28515625]))
    print(
        f"\n| law of general loss | MAE, nats | left-out shares | at {kept.share[0]} | interval | critical general share | seconds |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in ("exponential", "adaptation", "d_cpt", "cmr", "bimix", "chinchilla_start"):
        started = time.process_time()
        settings = LawFit(form=name)
        losses = measured["general_loss"].to_numpy()
        law = fit(at, losses, settings)
        left = leave_out(at, losses, settings, "share")["mae"].mean()
        share = critical_share(law, at_end, start).general_share
        low, high = law.interval(kept)
        print(
            f"| {name} | {law.mae:.4f} | {left:.4f} | {law.predict(kept)[0]:.4f} | {low[0]:.4f} to {high[0]:.4f} | {share:.4f} "
            f"| {time.process_time() - started:.1f} |"
        )


if __name__ == "__main__":
    mixtures(Path(sys.argv[1]))
    laws(Path(sys.argv[1]))
