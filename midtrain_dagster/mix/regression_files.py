"""`midtrain fit-mixture`: tables of shares and losses in, predictions and a proposal out."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix.propose import Regression, normalised, propose, regress

NOT_MEASURED = (
    "index",
    "run",
    "name",
    "seed",
    "step",
    "steps",
    "tokens",
    "size",
    "role",
)  # tell of a run, are no share or loss


def fit_mixture_files(
    mixtures: Sequence[Path],
    losses: Sequence[Path],
    out: Path,
    targets: Sequence[str],
    predict: Path | None,
    model: str,
    key: str,
    share_prefix: str | None,
    bootstrap: int,
    kl: float,
    seed: int,
) -> dict[str, Any]:
    """Fit, and write `predictions.csv` (the table to predict with columns `predicted_<domain>`, `_low`, `_high`) and
    `mixture.json` (cross-validated scores, and the proposal against the mean mixture)."""
    if len(mixtures) != len(losses):
        raise MidtrainError(f"{len(mixtures)} tables of mixtures and {len(losses)} of losses: give them in pairs")
    joined = pl.concat([_pair(share, loss, key) for share, loss in zip(mixtures, losses, strict=True)], how="vertical_relaxed")
    columns = _share_columns(_table(mixtures[0]), key, share_prefix)
    names = _short(columns)
    measured = [c for c in _table(losses[0]).columns if c in joined.columns and c not in (*columns, *NOT_MEASURED, key)]
    measured = [c for c in measured if joined[c].dtype.is_numeric()]
    domains = _domains(measured, targets)
    shares = joined.select(pl.col(c).alias(n) for c, n in zip(columns, names, strict=True))
    fitted = regress(shares, joined.select(pl.col(c).alias(d) for d, c in domains.items()), model, bootstrap, seed=seed)
    mean = dict(zip(names, normalised(shares).mean(axis=0).tolist(), strict=True))
    report = {
        "runs": len(joined),
        "model": model,
        "components": names,
        "held_out": {d: asdict(s) for d, s in zip(fitted.domains, fitted.held_out, strict=True)},
        "proposal": asdict(propose(fitted, mean, kl=kl, seed=seed)),
    }
    out.mkdir(parents=True, exist_ok=True)
    if predict:
        _predictions(fitted, _table(predict), columns, key, seed).write_csv(out / "predictions.csv")
    (out / "mixture.json").write_text(json.dumps(report, indent=2))
    return report


def _table(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema_length=None)
    except FileNotFoundError:
        raise MidtrainError(f"{path}: there is no such file") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise MidtrainError(f"{path}: cannot be read as a table: {' '.join(str(error).split())[:200]}") from None


def _pair(mixtures: Path, losses: Path, key: str) -> pl.DataFrame:
    """Shares and losses of the same runs: one table, or two joined by the key where both have it, else row by row."""
    left, right = _table(mixtures), _table(losses)
    if mixtures == losses:
        return left
    if key in left.columns and key in right.columns:
        joined = left.join(right, on=key, how="inner", maintain_order="left")
        if len(joined) != len(left) or len(joined) != len(right):
            raise MidtrainError(
                f"{mixtures} and {losses}: {len(left)} and {len(right)} runs, {len(joined)} with the same {key}"
            )
        return joined
    if len(left) != len(right):
        raise MidtrainError(f"{mixtures} has {len(left)} rows and {losses} {len(right)}, and no column {key!r} joins them")
    return left.hstack(right.drop([c for c in right.columns if c in left.columns]))


def _share_columns(frame: pl.DataFrame, key: str, prefix: str | None) -> list[str]:
    found = [c for c in frame.columns if c not in (key, *NOT_MEASURED) and frame[c].dtype.is_numeric()]
    if prefix is not None:
        found = [c for c in found if c.startswith(prefix)]
    if len(found) < 2:
        raise MidtrainError(f"fewer than two columns of shares; the table has {', '.join(frame.columns)}")
    return found


def _short(columns: list[str]) -> list[str]:
    """Names without what all have in common at both ends, whole words only."""
    if len(columns) < 2:
        return columns
    head, tail = _common(columns), _common([c[::-1] for c in columns])[::-1]
    head = head[: max(head.rfind("_"), head.rfind("/")) + 1]
    tail = tail[tail.find("_") :] if "_" in tail else ""
    return [c[len(head) : len(c) - len(tail)] for c in columns]


def _common(words: list[str]) -> str:
    """The beginning that all words share."""
    shortest = min(words, key=len)
    different = (i for i, c in enumerate(shortest) if any(w[i] != c for w in words))
    return shortest[: next(different, len(shortest))]


def _domains(measured: list[str], targets: Sequence[str]) -> dict[str, str]:
    """Short name → column of the losses wanted."""
    if not measured:
        raise MidtrainError("the tables of losses have no columns beside those of the mixtures")
    short = dict(zip(_short(measured), measured, strict=True))
    if not targets:
        return short
    found = {}
    for target in targets:
        if target not in short and target not in measured:
            raise MidtrainError(f"there is no loss of {target!r}; there are {', '.join(short)}")
        found[target] = short.get(target, target)
    return found


def _predictions(fitted: Regression, asked: pl.DataFrame, columns: list[str], key: str, seed: int) -> pl.DataFrame:
    x = normalised(_same_columns(asked, columns, fitted.components, key))
    mean = fitted.predict(x)
    low, high = fitted.interval(x, seed=seed)
    added = []
    for j, domain in enumerate(fitted.domains):
        added += [pl.Series(f"predicted_{domain}", mean[:, j]), pl.Series(f"predicted_{domain}_low", low[:, j])]
        added.append(pl.Series(f"predicted_{domain}_high", high[:, j]))
    return asked.with_columns(added)


def _same_columns(asked: pl.DataFrame, columns: list[str], names: Sequence[str], key: str) -> pl.DataFrame:
    """The share columns of a table to predict, in the order of those fitted: by the same names, or by the same short ones."""
    if all(c in asked.columns for c in columns):
        return asked.select(columns)
    numeric = [c for c in asked.columns if c not in (key, *NOT_MEASURED) and asked[c].dtype.is_numeric()]
    short = {**dict(zip(_short(numeric), numeric, strict=True)), **{c: c for c in numeric}}
    missing = [c for c, n in zip(columns, names, strict=True) if n not in short]
    if missing:
        raise MidtrainError(f"the table to predict lacks {', '.join(missing)}")
    return asked.select(short[n] for n in names)
