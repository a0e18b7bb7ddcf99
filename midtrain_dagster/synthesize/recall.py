"""WebInstruct's recall: which pages are likely to hold questions with answers (MAmmoTH2, arXiv:2405.03548).

A fastText model learns seed pages against ordinary ones and recalls pages; the hosts with many recalled pages are shown to
the teacher, who says which are useful; a second model learns from those hosts' pages and recalls again.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.generators import Recall
from midtrain_dagster.synthesize.acceptance import words
from midtrain_dagster.synthesize.teacher import Parameters, Request, Teacher, ask

SETTINGS = {"dim": 256, "epoch": 3, "lr": 0.1, "wordNgrams": 3, "minCount": 3}  # the paper's


def train_recall(seeds: Sequence[str], others: Sequence[str], seed: int = 0, **changes: Any) -> Any:
    """A fastText model with the labels `seed` and `other`; one thread, so that equal inputs give equal models.

    `changes` override the paper's settings (small data need a smaller minCount and more epochs). Raises MidtrainError
    where one of the sides is empty.
    """
    import fasttext

    if not seeds or not others:
        raise MidtrainError("recall needs both seed pages with questions and ordinary pages")
    fasttext.FastText.eprint = lambda *told: None
    whole = {name: int(value) if float(value).is_integer() and name != "lr" else value for name, value in changes.items()}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "pages.txt"
        lines = [
            f"__label__{name} {' '.join(words(text))}\n"
            for name, texts in (("seed", seeds), ("other", others))
            for text in texts
        ]
        path.write_text("".join(lines), encoding="utf-8")
        return fasttext.train_supervised(str(path), thread=1, seed=seed, verbose=0, **{**SETTINGS, **whole})


def recall_scores(model: Any, pages: pl.DataFrame) -> pl.DataFrame:
    """id, text_hash, recall_score (the probability of `seed`, 0 to 1), host: one row a page, in the pages' order."""
    scores = []
    for text in pages["text"]:
        labels, probabilities = model.predict(" ".join(words(text)), k=2)
        found = dict(zip(labels, map(float, probabilities), strict=True))
        scores.append(min(1.0, found.get("__label__seed", 0.0)))
    hosts = [urlsplit(url or "").hostname for url in pages["url"]]
    columns = {"recall_score": pl.Series(scores, dtype=pl.Float64), "host": pl.Series(hosts, dtype=pl.String)}
    return pages.select("id", "text_hash").with_columns(**columns)


def useful_hosts(scores: pl.DataFrame, teacher: Teacher, threshold: float = 0.5, minimum: int = 1000) -> pl.DataFrame:
    """host, pages, useful: the hosts with `minimum` recalled pages or more, and the teacher's word on each (null: no word)."""
    recalled = scores.filter((pl.col("recall_score") >= threshold) & pl.col("host").is_not_null())
    hosts = recalled.group_by("host").agg(pages=pl.len()).filter(pl.col("pages") >= minimum).sort("host")
    question = "Is the web site {} likely to hold exercises, exam questions or expert answers? Answer yes or no."
    limits = Parameters(max_tokens=4)
    asked = [Request(({"role": "user", "content": question.format(host)},), limits, "recall/hosts") for host in hosts["host"]]
    said = [None if reply.error else reply.text.strip().lower()[:3].rstrip(".,") for reply in ask(teacher, asked)]
    verdicts = [{"yes": True, "no": False}.get(word) if word else None for word in said]
    return hosts.with_columns(useful=pl.Series(verdicts, dtype=pl.Boolean))


def recalled(
    pages: pl.DataFrame, seeds: pl.DataFrame, settings: Recall, teacher: Teacher
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The pages worth extracting from, and how they were found: learn the seeds, recall, let the teacher choose hosts, learn
    their pages too, recall again.

    `pages` and `seeds` have id, text, text_hash and url. Raises MidtrainError where there are no seeds, or nothing else.
    """

    def scored(positives: pl.DataFrame) -> pl.DataFrame:
        others = pages.join(positives, on="id", how="anti")
        good, bad = (frame.sort("id")["text"].head(settings.most).to_list() for frame in (positives, others))
        training: dict[str, Any] = dict(settings.training)
        return recall_scores(train_recall(good, bad, **training), pages)

    first = scored(seeds)
    hosts = useful_hosts(first, teacher, settings.threshold, settings.host_pages)
    useful = hosts.filter(pl.col("useful"))["host"].to_list()
    likely = (pl.col("recall_score") >= settings.threshold) & pl.col("host").is_in(useful)
    chosen = pl.concat([seeds.select("id"), first.filter(likely).select("id")]).unique()
    positives = pages.join(chosen, on="id", how="semi")
    second = scored(positives) if useful and len(positives) < len(pages) else first
    useless = hosts.filter(~pl.col("useful").fill_null(value=True))["host"].to_list()
    keep = (pl.col("recall_score") >= settings.threshold) & ~pl.col("host").fill_null("").is_in(useless)
    found = pages.join(second.filter(keep).select("id", "recall_score"), on="id", how="inner")
    told = {
        "pages": len(pages),
        "seeds": len(seeds),
        "recalled at first": int((first["recall_score"] >= settings.threshold).sum()),
        "hosts": hosts.to_dicts(),
        "recalled": len(found),
    }
    return found, told
