"""`midtrain fit-law`: a user's own table of runs in, law and predictions out."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
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


USUAL = {
    "share": ("general_share", "share", "ratio", "general_ratio", "mixture_ratio"),
    "tokens": ("tokens", "step", "steps", "train_tokens", "training_tokens"),
    "size": ("size", "model_size", "parameters", "params", "n"),
    "lr_area": ("lr_area", "s1"),
    "annealing_area": ("annealing_area", "s2"),
    "start": ("start_loss",),
}
OF_THE_DOMAIN = ("domain", "target", "special")  # the other side of general
GENERAL_SHARE = "general_share"


def detect(frame: pl.DataFrame, given: Mapping[str, str]) -> dict[str, str]:
    """Columns by their usual names, in any case, where no option names them."""
    lower = {c.lower(): c for c in reversed(frame.columns)}
    found = dict(given)
    for name, candidates in USUAL.items():
        match = next((lower[c] for c in candidates if c in lower), None)
        if name not in found and match:
            found[name] = match
    if "share" not in found:
        raise MidtrainError(f"which column is the share? The table has {', '.join(frame.columns)}; name it with --share")
    return found


def with_general_share(frame: pl.DataFrame, given: Mapping[str, str]) -> pl.DataFrame:
    """The table with a general share where it has only the other domain's: 1 − `domain_share` (or target, special)."""
    lower = {c.lower(): c for c in frame.columns}
    other = next((lower[f"{n}_share"] for n in OF_THE_DOMAIN if f"{n}_share" in lower), None)
    if "share" in given or any(n in lower for n in USUAL["share"]) or other is None:
        return frame
    return frame.with_columns((1 - pl.col(other).cast(pl.Float64)).alias(GENERAL_SHARE))


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

    `losses`: column → whether it is the loss of the other domain, whose share is 1 − share. A row with an empty share, or of
    no tokens, is the start state (one for each size, where sizes differ). `tolerance` (nats) asks for the critical share of
    the first loss that is not of the other domain. Rows to predict without a share get no prediction.
    """
    table = with_general_share(read_table(runs), columns)
    names = detect(table, columns)
    missing = [c for c in names.values() if c not in table.columns]
    if missing:
        raise MidtrainError(f"{runs}: there is no column {missing[0]!r}; the table has {', '.join(table.columns)}")
    chosen = dict(losses) or {c: any(d in c.lower() for d in OF_THE_DOMAIN) for c in loss_columns(table)}
    if not chosen:
        raise MidtrainError(f"{runs}: which column is the loss? The table has {', '.join(table.columns)}; name it with --loss")
    for column in chosen:
        if column not in table.columns:
            raise MidtrainError(f"{runs}: there is no column {column!r}; the table has {', '.join(table.columns)}")
    begins = pl.col(names["share"]).is_null()
    if "tokens" in names:
        begins = begins | (pl.col(names["tokens"]).cast(pl.Float64, strict=False) == 0).fill_null(value=False)
    begin, measured = table.filter(begins), table.filter(~begins)
    asked = read_table(predict) if predict else None
    wanted = _renamed(with_general_share(asked, columns), names) if asked is not None else None
    report: dict[str, Any] = {"columns": names, "laws": {}}
    errors = []
    for column, other in chosen.items():
        rows, own, start = _with_start(measured.filter(pl.col(column).is_not_null()), begin, names, column)
        at = points(rows, own, start, other)
        reach = None
        if wanted is not None:
            told, own_told, _ = _with_start(wanted, begin, names, column)
            known = told.filter(pl.col(names["share"]).is_not_null())
            reach = points(known, {k: v for k, v in own_told.items() if v in known.columns}, start, other)
        law, left_out = choose(at, rows[column].cast(pl.Float64).to_numpy(), settings, reach)
        if tolerance is not None and not other and "critical_share" not in report:
            report["critical_share"] = asdict(critical_share(law, *_most(at, column, tolerance)))
        report["laws"][column] = _about(law, at, start, left_out)
        errors.append(left_out.with_columns(loss=pl.lit(column)))
        if asked is not None and wanted is not None and reach is not None:
            _require(law, reach, names, predict)
            asked = _predicted(asked, wanted[names["share"]].is_not_null(), law, reach, column)
    out.mkdir(parents=True, exist_ok=True)
    if asked is not None:
        asked.write_csv(out / "predictions.csv")
    pl.concat(errors).write_csv(out / "left_out.csv")
    (out / "law.json").write_text(json.dumps(report, indent=2))
    return report


def loss_columns(table: pl.DataFrame) -> list[str]:
    """Columns that hold losses, by their names."""
    return [c for c in table.columns if c.lower().endswith("loss") and not c.lower().startswith("start")]


def _with_start(
    rows: pl.DataFrame, begin: pl.DataFrame, names: Mapping[str, str], column: str
) -> tuple[pl.DataFrame, dict[str, str], float | None]:
    """Rows with the loss that each began at, where start rows of several sizes say so; else the one start loss there is."""
    told = begin.filter(pl.col(column).is_not_null()) if column in begin.columns else begin.clear()
    size = names.get("size")
    if "start" in names or not len(told):
        return rows, dict(names), None
    if size is None or size not in rows.columns or told[size].n_unique() < 2:
        return rows, dict(names), float(told[column][0])
    starts = told.group_by(size).agg(pl.col(column).first().cast(pl.Float64).alias("start of its size"))
    joined = rows.join(starts, on=size, how="left", maintain_order="left")
    return joined, {**names, "start": "start of its size"}, None


def _renamed(asked: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    """The table to predict with the columns called as in the table of runs."""
    lower = {c.lower(): c for c in asked.columns}
    for name, column in names.items():
        match = next((lower[c] for c in USUAL[name] if c in lower), None)
        if column not in asked.columns and match:
            asked = asked.rename({match: column})
    if names["share"] not in asked.columns:
        raise MidtrainError(f"the table to predict has no column {names['share']!r}; it has {', '.join(asked.columns)}")
    return asked


def _require(law: Law, at: Points, names: Mapping[str, str], path: Path | None) -> None:
    """Raise where the table to predict lacks what the law depends on."""
    needs = set(law.form.needs) - {"tokens"} if law.form.local and law.pieces[0].tokens is None else set(law.form.needs)
    if law.form.local and len({p.size for p in law.pieces}) > 1:
        needs.add("size")
    missing = sorted(n for n in needs if not at.has(n))
    if len(at) and missing:
        said = ", ".join(f"{n} ({names[n]!r})" if n in names else n for n in missing)
        raise MidtrainError(f"{path}: form {law.form.name} needs {said} in every row to predict")


def _predicted(asked: pl.DataFrame, known: pl.Series, law: Law, at: Points, column: str) -> pl.DataFrame:
    """The table with the law's loss and interval; empty where it has no share."""
    low, high = law.interval(at)
    for name, values in (("", law.predict(at)), ("_low", low), ("_high", high)):
        whole = np.full(len(asked), np.nan)
        whole[known.to_numpy()] = values
        asked = asked.with_columns(pl.Series(f"predicted_{column}{name}", whole).fill_nan(None))
    return asked


def _most(at: Points, column: str, tolerance: float) -> tuple[Callable[[np.ndarray], Points], float]:
    """General shares → points at the most tokens and, of those, the largest size measured; and the loss that may not be
    exceeded there."""
    last = int(np.lexsort((np.nan_to_num(at.size), np.nan_to_num(at.tokens)))[-1])
    if not np.isfinite(at.start[last]):
        raise MidtrainError(f"the critical share needs the loss before training: a row with an empty share and its {column}")

    def make(shares: np.ndarray) -> Points:
        return replace(at[np.full(len(shares), last)], share=shares)

    return make, float(at.start[last]) + tolerance


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
