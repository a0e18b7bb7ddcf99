"""What a person looks at before setting a threshold: what is touched, by which evidence, and pairs side by side at each level."""

import re
from difflib import SequenceMatcher

import polars as pl

from midtrain_dagster.decontaminate.behaviour import SAME

STEP = 10  # levels of score in 1
AROUND = 80  # characters of a document before and after its match
LONGEST = 600  # characters of a question or passage that are shown
RUN = 8  # words in a row that speak for themselves
WORD = re.compile(r"\w+")
BENCHMARK = ["benchmark", "found_in"]


def touched(questions: pl.DataFrame, matches: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """One row a benchmark and source: questions there are, questions touched at the threshold, documents that touch them.

    A benchmark that nothing touches has one row: zeros, and null for where and how strongly.
    """
    there = questions.group_by("benchmark").agg(questions=pl.len())
    hits = matches.filter(pl.col("score") >= threshold).rename({"source": "found_in"}).group_by(BENCHMARK)
    counted = there.join(hits.agg(*_counted()), on="benchmark", how="left").sort(BENCHMARK)
    return counted.with_columns(pl.col("questions_touched", "documents").fill_null(0))


def by_evidence(matches: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """The same by what speaks for the match: benchmark, found_in, evidence, questions_touched, documents, best_score."""
    hits = matches.filter(pl.col("score") >= threshold).rename({"source": "found_in"}).with_columns(evidence=evidence())
    return hits.group_by([*BENCHMARK, "evidence"]).agg(*_counted()).sort([*BENCHMARK, "evidence"])


def narrow(table: pl.DataFrame) -> pl.DataFrame:
    """A table of counts for a narrow page: what was touched first, under short names."""
    first = ("benchmark", "found_in", "evidence", "questions_touched", "questions", "documents", "best_score")
    chosen = table.select([name for name in first if name in table.columns])
    return chosen.rename({"questions_touched": "touched", "questions": "of", "best_score": "best"}, strict=False)


def by_level(matches: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """What each level holds, highest first: level, counts (at this threshold), pairs, questions, documents, and the documents
    that a threshold at the level's foot would take in all."""
    levelled = matches.with_columns(level=level(), counts=pl.col("score") >= threshold)
    rows = levelled.group_by("level", "counts").agg(
        pairs=pl.len(), questions=pl.col("question_id").n_unique(), documents=pl.col("id").n_unique()
    )
    best = levelled.group_by("id").agg(pl.col("level").max())["level"]
    above = [int((best >= foot).sum()) for foot in rows["level"]]
    return rows.with_columns(from_here_up=pl.Series(above, dtype=pl.Int64)).sort("level", "counts", descending=True)


def _counted() -> list[pl.Expr]:
    return [
        pl.col("question_id").n_unique().alias("questions_touched"),
        pl.col("id").n_unique().alias("documents"),
        pl.col("score").max().alias("best_score"),
    ]


def level() -> pl.Expr:
    """The foot of a score's level, as 0.5 for 0.5 up to but not 0.6; 1 is a level of its own."""
    return ((pl.col("score") * STEP + 1e-9).floor() / STEP).round(1).alias("level")


def evidence() -> pl.Expr:
    """What speaks for a match in the first place, in words."""
    return (
        pl.when("judged")
        .then(pl.lit("judged the same question"))
        .when(~pl.col("judged"))
        .then(pl.lit("judged another question"))
        .when("verbatim")
        .then(pl.lit("verbatim"))
        .when(pl.col("behaves") >= SAME)
        .then(pl.lit("a function that returns the same"))
        .when(pl.col("slots_changed") > 0)
        .then(pl.lit("numbers or names changed"))
        .when(pl.col("longest_run") >= RUN)
        .then(pl.lit(f"{RUN} words and more in a row"))
        .when(pl.col("alike").is_not_null() | pl.col("cosine").is_not_null())
        .then(pl.lit("alike as a whole"))
        .otherwise(pl.lit("words in common"))
    )


def samples(matches: pl.DataFrame, each: int = 3) -> pl.DataFrame:
    """A few matches of every level, highest first: of as many benchmarks as there are, the best of each first."""
    order = ["level", "turn", "score", "id", "question_id"]
    own = matches.sort("score", "id", "question_id", descending=[True, False, False])
    own = own.unique(["id", "question_id"], keep="first", maintain_order=True).with_columns(level=level())
    turned = own.with_columns(turn=pl.int_range(pl.len()).over("level", "benchmark"))
    return turned.sort(order, descending=[True, False, True, False, False]).group_by("level", maintain_order=True).head(each)


def aligned(chosen: pl.DataFrame, questions: pl.DataFrame, documents: pl.DataFrame) -> pl.DataFrame:
    """Samples side by side, the words that they share in order in bold: score, evidence, question, passage, and what to write into
    an allow-list (id, question_id). `documents` has id and text, `questions` question_id and question."""
    rows = chosen.with_columns(evidence=evidence()).join(
        questions.select("question_id", "question"), on="question_id", how="left"
    )
    rows = rows.join(documents.select("id", "text"), on="id", how="left", maintain_order="left")
    shown = []
    for row in rows.iter_rows(named=True):
        text = row["text"] or ""
        passage = text[max(0, row["start"] - AROUND) : row["end"] + AROUND]
        question, said = side_by_side((row["question"] or "")[:LONGEST], passage[:LONGEST])
        about = {name: row[name] for name in ("level", "score", "benchmark", "evidence", "source")}
        shown.append({**about, "question": question, "passage": said, "ids": f"{row['id']} {row['question_id']}"})
    return pl.DataFrame(shown, infer_schema_length=None)


def side_by_side(question: str, passage: str) -> tuple[str, str]:
    """Both as Markdown, with the words in bold that they share in the same order."""
    words = [list(WORD.finditer(text)) for text in (question, passage)]
    folded = [[found.group().casefold() for found in some] for some in words]
    blocks = SequenceMatcher(None, folded[0], folded[1], autojunk=False).get_matching_blocks()
    sides = []
    for side, text in enumerate((question, passage)):
        runs = [(block[side], block[side] + block.size) for block in blocks if block.size]
        sides.append(_bold(text, [(words[side][first].start(), words[side][end - 1].end()) for first, end in runs]))
    return sides[0], sides[1]


def _bold(text: str, spans: list[tuple[int, int]]) -> str:
    told, at = [], 0
    for start, end in spans:
        told += [_plain(text[at:start]), "**", _plain(text[start:end]), "**"]
        at = end
    return "".join([*told, _plain(text[at:])])


def _plain(text: str) -> str:
    return text.replace("*", "\\*").replace("_", "\\_")
