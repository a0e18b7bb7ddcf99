"""From matches to a decision per document."""

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
    hits = matches.filter((pl.col("method") == settings.method) & (pl.col("score") >= settings.threshold))
    return unexcepted(hits, settings)


def unexcepted(matches: pl.DataFrame, settings: Decontamination) -> pl.DataFrame:
    """The matches whose document, or document and question, the allow-list does not name."""
    allowed = read_allow_list(settings.allow_list)
    pairs = pl.DataFrame(sorted(allowed.pairs), schema={"id": pl.String, "question_id": pl.String}, orient="row")
    others = matches.filter(~pl.col("id").is_in(sorted(allowed.documents)))
    return others.join(pairs, on=["id", "question_id"], how="anti")
