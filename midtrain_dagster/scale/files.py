"""`midtrain fit-law`: a user's own table of runs in, law and predictions out."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.scaling import LawFit
from midtrain_dagster.scale.critical import critical_share
from midtrain_dagster.scale.fit import Law
from midtrain_dagster.scale.measurements import Points, points
from midtrain_dagster.scale.validate import choose, constraints


def read_table(path: Path) -> pl.DataFrame:
    """A CSV or Parquet table."""
    try:
        return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema_length=None)
    except FileNotFoundError:
        raise MidtrainError(f"{path}: there is no such file") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise MidtrainError(f"{path}: cannot be read as a table: {' '.join(str(error).split())[:200]}") from None


def detect(frame: pl.DataFrame, given: Mapping[str, str]) -> dict[str, str]:
    """Columns by their usual names where no option names them."""
    usual = {
        "share": ("general_share", "share"),
        "tokens": ("tokens", "step", "steps"),
        "size": ("size", "parameters", "n"),
        "lr_area": ("lr_area", "s1"),
        "annealing_area": ("annealing_area", "s2"),
        "start": ("start_loss",),
    }
    found = dict(given)
    for name, candidates in usual.items():
        match = next((c for c in candidates if c in frame.columns), None)
        if name not in found and match:
            found[name] = match
    if "share" not in found:
        raise MidtrainError(f"which column is the share? The table has {', '.join(frame.columns)}; name it with --share")
    return found


def fit_law_files(
    runs: Path,
    predict: Path | None,
    out: Path,
    columns: Mapping[str, str],
    losses: Mapping[str, bool],
    settings: LawFit,
    tolerance: float | None,
) -> dict[str, Any]:
    """Fit one law a loss column and write `law.json`, `left_out.csv` and, where asked, `predictions.csv`.

    `losses`: column → whether it is the loss of the other domain, whose share is 1 − share. A row with an empty share is the
    start state. `tolerance` (nats) asks for the critical share of the first loss that is not of the other domain.
    """
    table = read_table(runs)
    names = detect(table, columns)
    chosen = dict(losses) or {c: "domain" in c for c in table.columns if c.endswith("loss") and c != "start_loss"}
    if not chosen:
        raise MidtrainError(f"{runs}: which column is the loss? The table has {', '.join(table.columns)}; name it with --loss")
    for column in chosen:
        if column not in table.columns:
            raise MidtrainError(f"{runs}: there is no column {column!r}; the table has {', '.join(table.columns)}")
    begin = table.filter(pl.col(names["share"]).is_null())
    measured = table.filter(pl.col(names["share"]).is_not_null())
    asked = read_table(predict) if predict else None
    predictions = asked
    report: dict[str, Any] = {"columns": names, "laws": {}}
    errors = []
    for column, other in chosen.items():
        rows = measured.filter(pl.col(column).is_not_null())
        start = float(begin[column][0]) if len(begin) and begin[column][0] is not None else None
        at = points(rows, names, start, other)
        law, left_out = choose(at, rows[column].cast(pl.Float64).to_numpy(), settings)
        about = _about(law, at, start, left_out)
        if tolerance is not None and not other and "critical_share" not in report:
            report["critical_share"] = asdict(critical_share(law, _last(law, at, start), _start(start, column) + tolerance))
        report["laws"][column] = about
        errors.append(left_out.with_columns(loss=pl.lit(column)))
        if asked is not None and predictions is not None:
            wanted = points(asked, {k: v for k, v in names.items() if v in asked.columns}, start, other)
            low, high = law.interval(wanted)
            predictions = predictions.with_columns(
                pl.Series(f"predicted_{column}", law.predict(wanted)),
                pl.Series(f"predicted_{column}_low", low),
                pl.Series(f"predicted_{column}_high", high),
            )
    out.mkdir(parents=True, exist_ok=True)
    if predictions is not None:
        predictions.write_csv(out / "predictions.csv")
    pl.concat(errors).write_csv(out / "left_out.csv")
    (out / "law.json").write_text(json.dumps(report, indent=2))
    return report


def _start(start: float | None, column: str) -> float:
    if start is None:
        raise MidtrainError(f"the critical share needs the loss before training: a row with an empty share and its {column}")
    return start


def _last(law: Law, at: Points, start: float | None) -> Any:
    """General shares → points at the most tokens and the largest size measured."""
    last = int(np.argmax(np.nan_to_num(at.tokens) + 1e-30 * np.nan_to_num(at.size)))

    def make(shares: np.ndarray) -> Points:
        return Points(
            shares,
            *(np.full(len(shares), getattr(at, n)[last]) for n in ("tokens", "size", "start", "lr_area", "annealing_area")),
        )

    return make


def _about(law: Law, at: Points, start: float | None, left_out: pl.DataFrame) -> dict[str, Any]:
    own = left_out.filter(pl.col("form") == law.form.name)
    return {
        "form": law.form.name,
        "paper": law.form.paper,
        "parameters": law.parameters(),
        "points": law.points,
        "mae": law.mae,
        "r2": law.r2,
        "start_loss": start,
        "left_out_mae": {by: float(own.filter(pl.col("by") == by)["mae"].mean()) for by in own["by"].unique().sort()},  # type: ignore[arg-type]
        "constraints": constraints(law, at),
    }
