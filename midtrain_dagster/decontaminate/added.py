"""Questions that were added or taken away: stored matches are brought up to date without looking for all questions again."""

from collections.abc import Callable, Iterable

import polars as pl

from midtrain_dagster.decontaminate.index import Index, build, new_questions
from midtrain_dagster.pieces import KEYS, Unreadable
from midtrain_dagster.recipes.decontamination import Decontamination
from midtrain_dagster.tables import Tables, digest

Look = Callable[[pl.DataFrame, Index | None], pl.DataFrame]  # documents, questions → matches


def follow(
    documents: Iterable[pl.DataFrame],
    stored: Iterable[str],
    known: pl.Series,
    questions: pl.DataFrame,
    settings: Decontamination,
    look: Look,
) -> list[pl.DataFrame]:
    """Matches of documents with `questions`, as looking for all of them in every document would find them.

    `stored` are the ids of documents with matches until now, `known` the ids of the questions that those were made with.
    New questions alone are looked for in every document, with words as rare as they are among all. What they touch, and what
    had matches, is matched once more with all questions: how rare a word is and by how much a question leads the next one
    depend on the others. A document under the lowest score that is kept is taken to stay there.
    """
    fresh, stored = new_questions(questions, known), set(stored)
    few = build(fresh, settings, among=questions) if len(fresh) else None
    whole = build(questions, settings) if len(questions) else None
    found = []
    for piece in documents:
        touched = stored | set(look(piece, few)["id"]) if few is not None else stored
        again = piece.filter(pl.col("id").is_in(sorted(touched)))
        if len(again):
            found.append(look(again, whole))
    return found


def follow_questions(
    tables: Tables,
    *,
    asset: str,
    source: str,
    base: str,
    reads: str,
    matches: str,
    scanned: str,
    questions: str,
    settings: Decontamination,
    look: Look,
) -> bool | None:
    """Bring a source's matches up to date with the table `questions`.

    The record of the last refresh names the version of that table that it looked for, and of the table `reads` that it looked
    in; `scanned` has `id` and `text_hash` of each document that was looked at. Says whether anything was done; None where it
    cannot be, and everything has to be matched afresh: that version can no longer be read.
    """
    last, now = tables.record(matches, asset), tables.version(questions)
    if last is None or last.base != base or last.reads.get(questions) == now:
        return False
    if questions not in last.reads or tables.record(scanned, asset) is None:
        return None
    asked, stored = tables.read(questions), tables.read(matches, source)
    try:
        known = tables.read(questions, version=last.reads[questions])["question_id"]
        changed = set(known) != set(asked["question_id"])
        found = [stored]
        if changed:
            documents = tables.pieces(reads, source, last.reads[reads])
            looked_at = documents.keys().join(tables.read(scanned, source), on=KEYS, how="semi")
            pieces = documents._replace(wanted=looked_at).read()
            found = [stored.clear(), *follow(pieces, stored["id"], known, asked, settings, look)]
    except Unreadable:
        return None
    rows = pl.concat([part.with_columns(source=pl.lit(source)) for part in found], how="diagonal_relaxed")
    record = last._replace(reads={**last.reads, questions: now}, digest=digest(rows), rows=len(rows))
    tables.commit(matches, source, rows, record, replace=True, after=last)
    return changed
