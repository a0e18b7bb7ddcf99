"""Weights of raters from proxy runs (Meta-rater, arXiv 2504.14194): each run trains a small model on what its weights put first."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from midtrain_dagster.documents import text_hash
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix.choose import order_keys
from midtrain_dagster.mix.components import available
from midtrain_dagster.mix.mixture import mixture
from midtrain_dagster.mix.pack import pack
from midtrain_dagster.mix.proxies import pack_held_out
from midtrain_dagster.mix.tokens import TokenStore, load_tokenizer
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.coordination import LearntFromRuns
from midtrain_dagster.rate.coordinate import learn_weights, weighted_sum
from midtrain_dagster.recipes.mixture import Mixture, Packing
from midtrain_dagster.select.conditions import resolve
from midtrain_dagster.tables import database
from midtrain_dagster.train.plan import Phase, TrainingPlan
from midtrain_dagster.train.proxy import ProxyShape, train_proxy
from midtrain_dagster.train.tokenizer import train_tokenizer
from resources.lake import Lake

LOSS = "loss"
SCHEDULE = (Phase("warmup", share=0.1), Phase("constant", share=0.4), Phase("linear"))


def weigh(
    lake: Lake,
    ratings: pl.DataFrame,
    raters: tuple[str, ...],
    settings: LearntFromRuns,
    out: Path,
    threads: int,
    progress: Progress,
) -> dict[str, Any]:
    """Train the proxy runs, and learn the weights that they speak for. Runs that a killed process finished are not done again.

    `ratings` has id, text_hash and the raters' columns. `out` keeps `runs.parquet`: weights, tokens and loss of each run.
    """
    choice, held = sampled(lake, ratings, raters, settings)
    train_tokenizer(choice["text"], settings.vocabulary, out / "tokenizer")
    store = TokenStore(out / "tokens", load_tokenizer(out / "tokenizer"))
    store.add(choice)
    counted = store.count(choice).with_columns(component=pl.lit("all"), repetitions=pl.lit(1.0))
    validation = pack_held_out(held, store, out / "held_out", settings.sequence_length).path
    done = out / "done.jsonl"
    runs = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
    progress.advance(len(runs))
    drawn = np.random.default_rng(settings.seed).dirichlet(np.ones(len(raters)), size=settings.runs)
    for number in range(len(runs), settings.runs):
        weights = dict(zip(raters, map(float, drawn[number]), strict=True))
        runs.append(weights | run(best(counted, weights, settings.share), store, validation, settings, out / "run", threads))
        new = out / ".done.jsonl"
        new.write_text("".join(json.dumps(one) + "\n" for one in runs))
        new.replace(done)
        progress.advance(1)
    table = pl.DataFrame(runs)
    table.write_parquet(out / "runs.parquet")
    for folder in ("tokens", "run", "held_out", "tokenizer"):
        shutil.rmtree(out / folder, ignore_errors=True)
    done.unlink()
    learnt = learn_weights(table.select(*raters, LOSS), LOSS, settings.seed)
    return {**learnt._asdict(), "runs": len(table), "documents": len(choice), "held out": len(held)}


def sampled(
    lake: Lake, ratings: pl.DataFrame, raters: tuple[str, ...], settings: LearntFromRuns
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Documents that runs choose from, all rated by everyone; and those of the target that the loss is measured on."""
    schema = dict.fromkeys(lake.tables.schema("clean_documents"), "VARCHAR")
    target = resolve(settings.target, {"document": schema}, "rater weights: target").sql
    with database() as con:
        con.register("ratings", ratings.select("id", "text_hash", *raters).drop_nulls().drop_nans().to_arrow())
        found = con.sql(
            f"select id, source, 'target' as domain, left(text, {settings.characters}) as text, {', '.join(raters)}, ({target}) is true as target "
            f"from {lake.tables.relation('clean_documents')} document join ratings using (id, text_hash)"
        ).pl()
    found = found.with_columns(_key=pl.Series(order_keys(found["id"].to_list(), settings.seed), dtype=pl.UInt64)).sort("_key")
    held = found.filter("target").head(settings.held_out)
    choice = found.join(held, on="id", how="anti").head(settings.documents).sort("id")
    if held.is_empty() or len(choice) < settings.runs:
        raise MidtrainError(
            f"rater weights: {len(held)} rated documents of the target and {len(choice)} to choose from are too few; "
            f"see target ({settings.target}), or rate more documents"
        )
    hashed = pl.col("text").map_elements(text_hash, return_dtype=pl.String).alias("text_hash")
    return choice.drop("_key").with_columns(hashed), held.drop("_key").with_columns(hashed)


def best(documents: pl.DataFrame, weights: Mapping[str, float], share: float) -> pl.DataFrame:
    """The documents that the weights put first, up to a share of all tokens."""
    scored = documents.with_columns(_score=weighted_sum(documents.select(list(weights)), weights))
    first = scored.sort("_score", "id", descending=[True, False])
    return first.filter(pl.col("tokens").cum_sum() <= share * pl.col("tokens").sum()).drop("_score").sort("id")


def run(
    documents: pl.DataFrame, store: TokenStore, validation: Path, settings: LearntFromRuns, out: Path, threads: int
) -> dict[str, float]:
    """One proxy run from scratch: what it trained on, and its loss on the target in nats a token."""
    if documents.is_empty():
        raise MidtrainError("rater weights: the first document alone exceeds the share; raise learnt.share or learnt.documents")
    table = mixture(available(documents), Mixture(component_column="component", method="natural"))
    packing = Packing(sequence_length=settings.sequence_length, seed=settings.seed)
    rows = documents.select("id", "text_hash", "source", "component", "repetitions")
    shutil.rmtree(out, ignore_errors=True)
    packed = pack(rows, table, store, out, packing, settings.seed).sequences
    plan = TrainingPlan(
        "", "", "", peak_learning_rate=settings.peak_learning_rate, schedule=SCHEDULE, batch_sequences=settings.batch_sequences,
        micro_batch=settings.batch_sequences, seed=settings.seed, threads=threads,
    )  # fmt: skip
    shape = ProxyShape(settings.layers, settings.hidden, settings.heads)
    trained = train_proxy(packed.path, {"target": validation}, shape, plan)
    return {"tokens": float(trained["tokens"]), LOSS: float(trained["validation"]["target"]["after"]["loss"])}
