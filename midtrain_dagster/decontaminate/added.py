"""Questions that were added or taken away: stored matches are brought up to date without looking at all questions again."""

from collections.abc import Callable

import polars as pl

from midtrain_dagster.decontaminate.index import new_questions
from midtrain_dagster.pieces import KEYS, Unreadable
from midtrain_dagster.tables import Tables, digest

Look = Callable[[pl.DataFrame], Callable[[pl.DataFrame], pl.DataFrame]]  # questions to what finds them in documents


def follow_questions(
    tables: Tables, *, asset: str, source: str, base: str, reads: str, matches: str, scanned: str, questions: str, look: Look
) -> bool | None:
    """Match the documents that were scanned with the questions that are new, and drop the matches of questions that are gone.

    The record of the last refresh names the version of the table `questions` that it looked for, and of the table `reads` that it looked
    in; `scanned` has `id` and `text_hash` of each document that was looked at. Says whether anything was done; None where it
    cannot be, and everything has to be matched afresh: that version can no longer be read.
    """
    last, now = tables.record(matches, asset), tables.version(questions)
    if last is None or last.base != base or last.reads.get(questions) == now:
        return False
    if questions not in last.reads or tables.record(scanned, asset) is None:
        return None
    asked = tables.read(questions)
    kept = tables.read(matches, source).filter(pl.col("question_id").is_in(asked["question_id"].implode()))
    found = [kept]
    try:
        before = tables.read(questions, version=last.reads[questions])["question_id"]
        fresh = new_questions(asked, before)
        if len(fresh):
            documents = tables.pieces(reads, source, last.reads[reads])
            looked_at = documents.keys().join(tables.read(scanned, source), on=KEYS, how="semi")
            find = look(fresh)
            found += [find(piece) for piece in documents._replace(wanted=looked_at).read()]
    except Unreadable:
        return None
    rows = pl.concat([part.with_columns(source=pl.lit(source)) for part in found], how="diagonal_relaxed")
    record = last._replace(reads={**last.reads, questions: now}, digest=digest(rows), rows=len(rows))
    tables.commit(matches, source, rows, record, replace=True, after=last)
    return bool(len(fresh) or len(before) != len(asked))
