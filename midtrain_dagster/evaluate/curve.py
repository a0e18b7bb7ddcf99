"""Learning curves on a cheap subset: the first questions of each benchmark, and how far that may be from all of them."""

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np
import polars as pl

from midtrain_dagster.evaluate.verdicts import GOLD_BITS

VALUE_SCHEMA = pl.Schema(
    {
        "domain": pl.String,
        "benchmark": pl.String,
        "metric": pl.String,  # the primary one, and bits per byte of gold answers
        "questions": pl.UInt32,
        "value": pl.Float64,
        "stderr": pl.Float64,  # null for a single question
    }
)
CURVE_SCHEMA = pl.Schema([("step", pl.Int64), *VALUE_SCHEMA.items()])
AGREEMENT_SCHEMA = pl.Schema(
    {
        "benchmark": pl.String,
        "metric": pl.String,
        "questions": pl.UInt32,  # of the subset
        "all_questions": pl.UInt32,
        "largest_difference": pl.Float64,  # subset − full over the models, the largest in size
        "expected": pl.Float64,  # its standard error where the subset were drawn by chance
        "pairs": pl.UInt32,  # of models that the full set tells apart
        "same_order": pl.Float64,  # share of those pairs that the subset orders alike; null without any
    }
)


def first(samples: pl.DataFrame, limit: int) -> pl.DataFrame:
    """The samples that an evaluation with this `limit` would have: the first questions of each task."""
    return samples.filter(pl.col("row").rank("dense").over("task", "file") <= limit)


def values(samples: pl.DataFrame) -> pl.DataFrame:
    """Each benchmark's primary score and bits per byte of gold answers, as VALUE_SCHEMA."""
    some = samples.filter("primary").unique("question_id", keep="first", maintain_order=True)
    rows = []
    for (domain, benchmark), group in some.group_by("domain", "benchmark", maintain_order=True):
        scored, known = group.drop_nulls("score"), group.drop_nulls("gold_bits").filter(pl.col("gold_bytes") > 0)
        if not scored.is_empty():
            value, stderr = _ratio(scored["score"].to_numpy(), np.ones(scored.height))
            rows.append((domain, benchmark, scored["metric"][0], scored.height, value, stderr))
        if not known.is_empty():
            value, stderr = _ratio(known["gold_bits"].to_numpy(), known["gold_bytes"].to_numpy().astype(float))
            rows.append((domain, benchmark, GOLD_BITS, known.height, value, stderr))
    return pl.DataFrame(rows, schema=VALUE_SCHEMA, orient="row").sort("domain", "benchmark", "metric")


def _ratio(above: np.ndarray, below: np.ndarray) -> tuple[float, float | None]:
    ratio, count = float(above.sum() / below.sum()), len(above)
    if count < 2:
        return ratio, None
    residual = above - ratio * below
    return ratio, sqrt(float((residual**2).sum()) / (count - 1) / count) / float(below.mean())


def curve(checkpoints: Mapping[int, pl.DataFrame]) -> pl.DataFrame:
    """Samples of each step's checkpoint as CURVE_SCHEMA, by benchmark and step."""
    parts = [
        values(samples).with_columns(step=pl.lit(step, pl.Int64)).select(list(CURVE_SCHEMA))
        for step, samples in checkpoints.items()
    ]
    table = pl.concat(parts) if parts else pl.DataFrame(schema=CURVE_SCHEMA)
    return table.sort("domain", "benchmark", "metric", "step")


def agreement(models: Sequence[pl.DataFrame], limit: int) -> pl.DataFrame:
    """How the first `limit` questions of each task agree with all, over models evaluated in full, as AGREEMENT_SCHEMA."""
    whole = [values(samples) for samples in models]
    cut = [values(first(samples, limit)) for samples in models]
    rows = []
    for benchmark, metric in whole[0].select("benchmark", "metric").rows() if whole else []:
        here = (pl.col("benchmark") == benchmark) & (pl.col("metric") == metric)
        full, part = ([table.filter(here) for table in tables] for tables in (whole, cut))
        if any(table.is_empty() for table in (*full, *part)):
            continue
        n, total = int(part[0]["questions"][0]), int(full[0]["questions"][0])
        left, right = (np.array([table["value"][0] for table in tables]) for tables in (full, part))
        spread = full[0]["stderr"][0]
        expected = None if spread is None else spread * sqrt(max(total / n - 1, 0))  # finite population
        order = np.sign(left[:, None] - left[None]), np.sign(right[:, None] - right[None])
        told = np.triu(order[0] != 0, 1)
        same = float((order[0] == order[1])[told].mean()) if told.any() else None
        differences = right - left
        largest = float(differences[np.argmax(np.abs(differences))])
        rows.append((benchmark, metric, n, total, largest, expected, int(told.sum()), same))
    return pl.DataFrame(rows, schema=AGREEMENT_SCHEMA, orient="row")
