"""Base against mid-trained, question by question: what was gained, what was lost, and what of it survives without leaked questions."""

import json
from collections.abc import Iterable

import numpy as np
import polars as pl

from midtrain_dagster.documents import text_hash
from midtrain_dagster.evaluate.verdicts import GOLD_BITS, NUMBERS, USUAL, Judging, judge, paired_p, resampled, schema, stderr

IDENTIFIERS = ("id", "pid", "idx", "ind", "index", "task_id", "question_id", "query_id", "source_id", "split")
COMPARISON_SCHEMA = schema({"domain": pl.String, "benchmark": pl.String, "metric": pl.String})


def compare(
    base: pl.DataFrame,
    mid: pl.DataFrame,
    contaminated: Iterable[str] | pl.DataFrame = (),
    judging: Judging = USUAL,
) -> pl.DataFrame:
    """A row a benchmark and metric (its primary score, and bits per byte of gold answers) as COMPARISON_SCHEMA.

    `base` and `mid` are samples of the same questions (samples.SAMPLES_SCHEMA); questions that only one has are left out.
    `contaminated` are question ids, or a frame with `question_id`, or with `benchmark` (the file's name) and `row`. The interval is a paired bootstrap over
    questions; the p-value McNemar's exact test where scores are 0 or 1, else from the same resamples. A difference is *gained*
    or *lost* when Holm's adjusted p is under 1 − confidence; otherwise *unchanged* when the interval lies within
    ± `judging.unchanged_within`, else *cannot tell*. The `clean_` columns say the same without contaminated questions.
    """
    pairs = paired(base, mid)
    contaminations = leaked(pairs, contaminated)
    keys = pairs.select("domain", "benchmark", "metric").unique().sort("domain", "benchmark", "metric").rows()
    rows = []
    for domain, benchmark, metric in keys:
        chosen = (pl.col("benchmark") == benchmark) & (pl.col("metric") == metric)
        some, marks = pairs.filter(chosen), contaminations.filter(pairs.select(chosen).to_series())
        every = _contrast(some, metric, judging)
        clean = _contrast(some.filter(~marks), metric, judging)
        rows.append(
            {"domain": domain, "benchmark": benchmark, "metric": metric, **every, "set_aside": int(marks.sum())}
            | {f"clean_{name}": value for name, value in clean.items()}
        )
    return judge(rows, judging, COMPARISON_SCHEMA)


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


def _contrast(pairs: pl.DataFrame, metric: str, judging: Judging) -> dict[str, float | int | None]:
    """Both sides' scores with standard errors, their difference with interval, and its p-value; nulls for no questions."""
    if pairs.is_empty():
        return {"questions": 0, **dict.fromkeys(NUMBERS)}
    before, after, weight = sides = pairs.select("value", "mid_value", "weight").to_numpy().T
    left, right, total = resampled(np.random.default_rng(judging.seed), sides, judging.resamples)
    difference = (right - left) / np.where(total > 0, total, 1.0)
    base, mid = before.sum() / weight.sum(), after.sum() / weight.sum()
    p_value = paired_p(before, after, weight, difference, metric)
    values = (base, stderr(before, weight), mid, stderr(after, weight), mid - base, *judging.interval(difference), p_value)
    return {"questions": len(before), **dict(zip(NUMBERS, values, strict=True))}
