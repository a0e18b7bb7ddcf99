"""Base against mid-trained, question by question: what was gained, what was lost, and what of it survives without leaked questions."""

import json
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from midtrain_dagster.documents import text_hash

GOLD_BITS = "gold_bits_per_byte"
IDENTIFIERS = ("id", "pid", "idx", "ind", "index", "task_id", "question_id", "query_id", "source_id", "split")
HELD_OUT_BITS = "bits_per_byte"  # of held-out documents
LOWER_IS_BETTER = (GOLD_BITS, HELD_OUT_BITS)
SIDES = {
    "questions": pl.UInt32,
    "base": pl.Float64,
    "base_stderr": pl.Float64,
    "mid": pl.Float64,
    "mid_stderr": pl.Float64,
    "difference": pl.Float64,  # mid − base
    "low": pl.Float64,
    "high": pl.Float64,
    "p_value": pl.Float64,
    "p_adjusted": pl.Float64,  # Holm, over all rows of this table
    "verdict": pl.String,  # gained, unchanged, lost, cannot tell
}
COMPARISON_SCHEMA = pl.Schema(
    {"domain": pl.String, "benchmark": pl.String, "metric": pl.String, **SIDES}
    | {f"clean_{name}": kind for name, kind in SIDES.items()}
    | {"set_aside": pl.UInt32, "gain_disappears": pl.Boolean}
)


def compare(
    base: pl.DataFrame,
    mid: pl.DataFrame,
    contaminated: Iterable[str] | pl.DataFrame = (),
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    unchanged_within: float = 0.02,
) -> pl.DataFrame:
    """A row a benchmark and metric (its primary score, and bits per byte of gold answers) as COMPARISON_SCHEMA.

    `base` and `mid` are samples of the same questions (samples.SAMPLES_SCHEMA); questions that only one has are left out.
    `contaminated` are question ids, or a frame with `question_id`, or with `benchmark` (the file's name) and `row`. The interval is a paired bootstrap over
    questions; the p-value McNemar's exact test where scores are 0 or 1, else from the same resamples. A difference is *gained*
    or *lost* when Holm's adjusted p is under 1 − confidence; otherwise *unchanged* when the interval lies within
    ± `unchanged_within` (relative to the base for bits), else *cannot tell*. The `clean_` columns say the same without contaminated questions.
    """
    pairs = paired(base, mid)
    contaminations = leaked(pairs, contaminated)
    keys = pairs.select("domain", "benchmark", "metric").unique().sort("domain", "benchmark", "metric").rows()
    rows = []
    for domain, benchmark, metric in keys:
        chosen = (pl.col("benchmark") == benchmark) & (pl.col("metric") == metric)
        some, marks = pairs.filter(chosen), contaminations.filter(pairs.select(chosen).to_series())
        every = _contrast(some, metric, confidence, resamples, seed)
        clean = _contrast(some.filter(~marks), metric, confidence, resamples, seed)
        rows.append(
            {"domain": domain, "benchmark": benchmark, "metric": metric, **every, "set_aside": int(marks.sum())}
            | {f"clean_{name}": value for name, value in clean.items()}
        )
    for prefix in ("", "clean_"):
        decide(rows, prefix, confidence, unchanged_within)
    for row in rows:
        row["gain_disappears"] = row["set_aside"] > 0 and row["verdict"] == "gained" and row["clean_verdict"] != "gained"
    return pl.DataFrame(rows, schema=COMPARISON_SCHEMA)


def changes(base: pl.DataFrame, mid: pl.DataFrame, count: int = 10) -> pl.DataFrame:
    """The questions whose primary score, then whose bits per byte of gold, changed most, if they did: both outputs side by side."""
    columns = ["benchmark", "question_id", "prompt", "gold", "output", "score", "gold_bits", "gold_bytes"]
    left = _primary(base).select(columns)
    right = _primary(mid).select("question_id", mid_output="output", mid_score="score", mid_gold_bits="gold_bits")
    both = left.join(right, on="question_id", how="inner")
    moved = ((pl.col("mid_gold_bits") - pl.col("gold_bits")) / pl.col("gold_bytes")).abs().fill_null(0)
    jumped = (pl.col("mid_score") - pl.col("score")).abs().fill_null(0)
    changed = both.filter((jumped > 0) | (moved > 0))
    return changed.sort(jumped, moved, "question_id", descending=[True, True, False]).head(count)


def _primary(samples: pl.DataFrame) -> pl.DataFrame:
    return samples.filter("primary").unique("question_id", keep="first", maintain_order=True)


def paired(base: pl.DataFrame, mid: pl.DataFrame) -> pl.DataFrame:
    """question_id, same_question, file, row, domain, benchmark, metric, each side's value, and weight (1, or the gold's bytes)."""
    sides = []
    for samples in (base, mid):
        some = _primary(samples)
        some = some.with_columns(same_question=_content(some))
        where = ["question_id", "same_question", "file", "row", "domain", "benchmark"]
        scores = some.drop_nulls("score").select(*where, "metric", value="score", weight=pl.lit(1.0))
        bits = some.drop_nulls("gold_bits").select(
            *where, metric=pl.lit(GOLD_BITS), value="gold_bits", weight=pl.col("gold_bytes").cast(pl.Float64)
        )
        sides.append(pl.concat([scores, bits]))
    keys = ["question_id", "metric"]
    joined = sides[0].join(sides[1].select(*keys, mid_value="value"), on=keys, how="inner")
    return joined.sort("benchmark", "metric", "question_id")


def leaked(pairs: pl.DataFrame, contaminated: Iterable[str] | pl.DataFrame) -> pl.Series:
    """Which pairs are of a contaminated question, or of one that asks the same in the same words and stands elsewhere."""
    marked = _named(pairs, contaminated)
    return marked | pairs["same_question"].is_in(pairs.filter(marked)["same_question"].unique().to_list())


def _content(samples: pl.DataFrame) -> pl.Series:
    """Names what a row asks: its fields without those that only say which row it is. Null rows name themselves."""
    names = [
        identity if doc is None else text_hash(json.dumps(_without_ids(json.loads(doc)), sort_keys=True))
        for identity, doc in samples.select("question_id", "doc").iter_rows()
    ]
    return pl.Series(names, dtype=pl.String)


def _without_ids(doc: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in doc.items() if key not in IDENTIFIERS}


def _named(pairs: pl.DataFrame, contaminated: Iterable[str] | pl.DataFrame) -> pl.Series:
    if not isinstance(contaminated, pl.DataFrame):
        return pairs["question_id"].is_in(sorted(set(contaminated)))
    if "row" in contaminated.columns and "benchmark" in contaminated.columns:
        marks = contaminated.select(file="benchmark", row=pl.col("row").cast(pl.Int64), leaked=pl.lit(True)).unique()
        joined = pairs.join(marks, on=["file", "row"], how="left", maintain_order="left")
        return joined["leaked"].fill_null(False)
    return pairs["question_id"].is_in(contaminated["question_id"].unique().to_list())


def _contrast(pairs: pl.DataFrame, metric: str, confidence: float, resamples: int, seed: int) -> dict[str, float | int | None]:
    """Both sides' scores with standard errors, their difference with interval, and its p-value; nulls for no questions."""
    names = [name for name in SIDES if name not in ("questions", "p_adjusted", "verdict")]
    if pairs.is_empty():
        return {"questions": 0, **dict.fromkeys(names)}
    before, after, weight = (pairs[name].to_numpy() for name in ("value", "mid_value", "weight"))
    rng = np.random.default_rng(seed)
    count = len(before)
    draws = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    total = draws @ weight
    total = np.where(total > 0, total, 1.0)
    left, right = draws @ before / total, draws @ after / total
    difference = right - left
    low, high = np.quantile(difference, [(1 - confidence) / 2, (1 + confidence) / 2])
    values: Sequence[float | None] = (
        float(before.sum() / weight.sum()),
        _stderr(before, weight),
        float(after.sum() / weight.sum()),
        _stderr(after, weight),
        float((after - before).sum() / weight.sum()),
        float(low),
        float(high),
        _p_value(before, after, weight, difference, metric),
    )
    return {"questions": count, **dict(zip(names, values, strict=True))}


def _stderr(values: np.ndarray, weight: np.ndarray) -> float | None:
    """Of a ratio of sums (delta method); of a plain mean where weights are 1, as lm-evaluation-harness computes it."""
    count = len(values)
    if count < 2:
        return None
    residual = values - values.sum() / weight.sum() * weight
    return float(np.sqrt((residual**2).sum() / (count - 1) / count) / weight.mean())


def _p_value(before: np.ndarray, after: np.ndarray, weight: np.ndarray, difference: np.ndarray, metric: str) -> float:
    """Two-sided. McNemar's exact test counts only questions on which the two differ; else the share of resamples past zero."""
    if metric not in LOWER_IS_BETTER and set(np.unique(before)) | set(np.unique(after)) <= {0.0, 1.0}:
        from scipy.stats import binomtest

        won, lost = int((after > before).sum()), int((after < before).sum())
        return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    if np.array_equal(before, after):
        return 1.0
    stderr = _stderr(after - before, weight)
    mean = float((after - before).sum() / weight.sum())
    return resampled_p(difference, mean / stderr if stderr else None, len(before))


def resampled_p(difference: np.ndarray, statistic: float | None, count: int) -> float:
    """Two-sided p of resampled differences over `count` questions: the share past zero.

    Where none is, resamples cannot say how small p is, and no result would survive a correction for many comparisons;
    Student's t takes over then, for p below what the resamples resolve. But a few questions that happen to move alike prove
    nothing: p is never under 2^(1 − count), the least that an exact test of their signs can give.
    """
    from scipy.stats import t

    beyond = int(min((difference <= 0).sum(), (difference >= 0).sum()))
    p = min(1.0, 2 * (beyond + 1) / (len(difference) + 1))
    if not beyond and statistic is not None and count > 1:
        p = min(p, 2 * float(t.sf(abs(statistic), count - 1)))
    return max(p, 2.0 ** (1 - count))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): reject where the adjusted p is under the level, and the family-wise error holds."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def decide(rows: list[dict[str, object]], prefix: str, confidence: float, within: float) -> None:
    """Add the adjusted p-values and verdicts to `rows`, over those that have a difference at all."""
    tested = [row for row in rows if row[f"{prefix}p_value"] is not None]
    for row, adjusted in zip(tested, holm([float(str(row[f"{prefix}p_value"])) for row in tested]), strict=True):
        low, high, base = (float(str(row[f"{prefix}{name}"])) for name in ("low", "high", "base"))
        lower_is_better = row["metric"] in LOWER_IS_BETTER
        margin = within * base if lower_is_better else within
        better = (float(str(row[f"{prefix}difference"])) < 0) == lower_is_better
        row[f"{prefix}p_adjusted"] = adjusted
        if adjusted < 1 - confidence:
            row[f"{prefix}verdict"] = "gained" if better else "lost"
        else:
            row[f"{prefix}verdict"] = "unchanged" if -margin <= low and high <= margin else "cannot tell"
    for row in rows:
        if row[f"{prefix}p_value"] is None:
            row[f"{prefix}p_adjusted"], row[f"{prefix}verdict"] = None, "cannot tell"
