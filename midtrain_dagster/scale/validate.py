"""Is a law to be believed: error on shares and sizes it has not seen, and the signs its derivatives must have."""

from dataclasses import replace

import numpy as np
import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.scaling import LawFit
from midtrain_dagster.scale.fit import Law, fit, usable
from midtrain_dagster.scale.measurements import Points

FOLDS = 6
LEFT_OUT_SCHEMA = pl.Schema(
    {"by": pl.String, "left_out": pl.Float64, "points": pl.Int64, "mae": pl.Float64, "worst": pl.Float64, "last": pl.Float64}
)


def leave_out(points: Points, losses: np.ndarray, settings: LawFit, by: str) -> pl.DataFrame:
    """Fit without each value of `by` (`share` or `size`) and predict it: errors in nats.

    Columns `by, left_out, points, mae, worst, last` (signed error at the most tokens). The outermost shares are left out of
    nothing: a law is asked to interpolate shares, and to extrapolate to the largest size only. Many different shares are
    left out as neighbours, in FOLDS groups; `left_out` is their mean.
    """
    values = np.unique(getattr(points, by))
    inner = values[1:-1] if by == "share" else values[-1:]
    tried = np.array_split(inner, min(len(inner), FOLDS)) if len(inner) else []
    quick = settings.model_copy(update={"bootstrap": 0, "starts": max(4, settings.starts // 4)})
    rows = []
    for group in tried if len(values) > 2 or (by == "size" and len(values) > 1) else []:
        out = np.isin(getattr(points, by), group)
        try:
            law = fit(points[~out], losses[~out], quick)
            error = law.predict(points[out]) - losses[out]
        except MidtrainError:
            continue  # too few points are left, or the form cannot reach there: no row says so
        last = error[int(np.argmax(np.nan_to_num(points.tokens[out])))]
        rows.append(
            (by, float(group.mean()), int(out.sum()), float(np.abs(error).mean()), float(np.abs(error).max()), float(last))
        )
    return pl.DataFrame(rows, schema=LEFT_OUT_SCHEMA, orient="row")


def choose(points: Points, losses: np.ndarray, settings: LawFit, reach: Points | None = None) -> tuple[Law, pl.DataFrame]:
    """The law of `settings`, or with `auto` the one that predicts left-out shares (and the largest size) best.

    Of `auto`'s forms only those compete that say something at the points of `reach`. Returns the law and the errors of all
    forms tried, with a column `form`.
    """
    names = usable(points) if settings.form == "auto" else [settings.form]
    tables = {}
    for name in names:
        own = settings.model_copy(update={"form": name})
        found = [leave_out(points, losses, own, "share")]
        if points.varies("size"):
            found.append(leave_out(points, losses, own, "size"))
        tables[name] = pl.concat(found).with_columns(form=pl.lit(name))
    errors = pl.concat(list(tables.values())).select("form", *LEFT_OUT_SCHEMA)
    if settings.form != "auto":
        return fit(points, losses, settings), errors
    if errors.is_empty():
        raise MidtrainError(
            "no form can be judged: too few shares or sizes are left when one is left out; name the form instead of `auto`"
        )
    tried = max(len(t) for t in tables.values())
    complete = [n for n, t in tables.items() if len(t) == tried]
    for name in sorted(complete, key=lambda n: (float(tables[n]["mae"].mean()), n)):  # type: ignore[arg-type]
        law = fit(points, losses, settings.model_copy(update={"form": name}))
        if reach is None or _reaches(law, reach):
            return law, errors
    raise MidtrainError("no form reaches all points to predict; leave out those farthest from the measurements")


def _reaches(law: Law, points: Points) -> bool:
    try:
        return bool(np.isfinite(law.predict(points)).all())
    except MidtrainError:
        return False


def constraints(law: Law, points: Points) -> dict[str, bool]:
    """Signs that the derivatives must have over the range of the points (D-CPT law, arXiv 2406.01375, constraints 1 to 4):
    a loss falls in its own share, in size and, at the largest share measured, in tokens; and more tokens help more where the
    own share is larger (∂²L/∂D∂r < 0)."""

    def falls(name: str, at: Points) -> bool:
        high = replace(at, **{name: getattr(at, name) * 1.01})
        return bool((law.predict(high) <= law.predict(at) + 1e-9).all())

    inside = points[points.share < points.share.max()] if points.varies("share") else points
    found = {"falls_in_share": falls("share", inside)}
    if points.varies("size") and not law.form.local:
        found["falls_in_size"] = falls("size", points)
    if points.varies("tokens") and "tokens" in law.form.needs:
        most = points[points.share == points.share.max()]
        found["falls_in_tokens_at_largest_share"] = falls("tokens", most[most.tokens < points.tokens.max()])
        below = inside[inside.tokens < points.tokens.max()]
        shared = replace(below, share=below.share * 1.01)
        gain = [law.predict(replace(p, tokens=p.tokens * 1.01)) - law.predict(p) for p in (shared, below)]
        found["tokens_help_more_at_larger_share"] = bool((gain[0] <= gain[1] + 1e-9).all())
    return found
