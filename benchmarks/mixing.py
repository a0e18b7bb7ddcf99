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

TARGET = "metric/the_pile_pile_cc_val_loss"
COLUMNS = {"share": "general_share", "tokens": "step"}


def runs(folder: Path, part: str, size: str) -> tuple[np.ndarray, np.ndarray]:
    shares = pl.read_csv(folder / f"regmix_{part}_mixture_{size}.csv").drop("index")
    return normalised(shares), pl.read_csv(folder / f"regmix_{part}_pile_loss_{size}.csv")[TARGET].to_numpy()


def mixtures(folder: Path) -> None:
    print("| model | Spearman 1M | Spearman 60M | MAE 1M, nats | seconds |\n|---|---|---|---|---|")
    shares, losses = runs(folder, "train", "1m")
    for name, model in MODELS.items():
        started = time.process_time()
        predict = model(shares, losses)
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

    print("\n| law of general loss | MAE, nats | critical general share | seconds |\n|---|---|---|---|")
    for name in ("exponential", "adaptation", "d_cpt", "cmr", "chinchilla_start"):
        started = time.process_time()
        law = fit(at, measured["general_loss"].to_numpy(), LawFit(form=name, bootstrap=0))
        share = critical_share(law, at_end, start).general_share
        print(f"| {name} | {law.mae:.4f} | {share:.4f} | {time.process_time() - started:.1f} |")


if __name__ == "__main__":
    mixtures(Path(sys.argv[1]))
    laws(Path(sys.argv[1]))
