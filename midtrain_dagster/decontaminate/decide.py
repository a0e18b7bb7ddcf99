"""From matches to a decision per document, and the text without the spans that decided it."""

import polars as pl

from midtrain_dagster.decontaminate.allow_list import read_allow_list
from midtrain_dagster.recipes.decontamination import Decontamination

DECISIONS_SCHEMA = pl.Schema({"id": pl.String, "contaminated": pl.Boolean, "reason": pl.String})


def decide(matches: pl.DataFrame, settings: Decontamination, ids: pl.Series | None = None) -> pl.DataFrame:
    """DECISIONS_SCHEMA by id: of every document in `ids`, or of those with matches alone. The best match is the reason."""
    hits = decisive(matches, settings)
    best = hits.sort("id", pl.col("score"), "question_id", descending=[False, True, False]).unique(
        "id", keep="first", maintain_order=True
    )
    reasons = best.select(
        "id",
        pl.format(
            "{} {}: question {} scores {}", "method", "benchmark", pl.col("question_id").str.head(12), pl.col("score").round(3)
        ).alias("reason"),
    )
    everyone = (ids if ids is not None else matches["id"]).alias("id").unique().sort().to_frame()
    decided = everyone.join(reasons, on="id", how="left").sort("id")
    return decided.select("id", pl.col("reason").is_not_null().alias("contaminated"), pl.col("reason").cast(pl.String))


def decisive(matches: pl.DataFrame, settings: Decontamination) -> pl.DataFrame:
    """The matches that count: of the settings' method, at its threshold or above, not on the allow-list."""
    allowed = read_allow_list(settings.allow_list)
    pairs = pl.DataFrame(sorted(allowed.pairs), schema={"id": pl.String, "question_id": pl.String}, orient="row")
    hits = matches.filter(
        (pl.col("method") == settings.method)
        & (pl.col("score") >= settings.threshold)
        & ~pl.col("id").is_in(sorted(allowed.documents))
    )
    return hits.join(pairs, on=["id", "question_id"], how="anti")


def cut(documents: pl.DataFrame, matches: pl.DataFrame, settings: Decontamination) -> pl.DataFrame:
    """`id`, `text`: contaminated documents without the matching spans (the action `cut`); others are not listed."""
    spans = decisive(matches, settings).group_by("id").agg("start", "end").sort("id")
    texts = documents.select("id", "text").join(spans, on="id", how="inner").sort("id")
    rows = [
        {"id": identity, "text": _without(text or "", sorted(zip(starts, ends, strict=True)))}
        for identity, text, starts, ends in texts.iter_rows()
    ]
    return pl.DataFrame(rows, schema={"id": pl.String, "text": pl.String})


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    kept, at = [], 0
    for start, end in spans:
        kept.append(text[at : max(at, start)])
        at = max(at, end)
    return "".join([*kept, text[at:]])
