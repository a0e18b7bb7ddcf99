"""Matches, and passages that a source repeats, cut out of documents, with an account of every character that went."""

import json
from collections.abc import Sequence

import polars as pl

from midtrain_dagster.documents import text_hash
from midtrain_dagster.recipes.decontamination import Cutting

JOINT = "\n\n"  # between pieces that stood apart
WORD = 30  # a word longer than this is cut inside

CUTS_SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "text_hash": pl.String,  # of the text that it is cut out of
        "source": pl.String,
        "start": pl.Int64,  # characters of that text
        "end": pl.Int64,
        "reason": pl.String,  # contamination, short piece (what was left between matches), or repeated
        "benchmark": pl.String,  # of the best match inside; null for the other reasons
        "question_id": pl.String,
        "score": pl.Float64,
        "left": pl.Int64,  # characters of what is left of the document, all cuts made
        "left_hash": pl.String,  # its text_hash
    }
)


REPEATED_SCHEMA = pl.Schema({"id": pl.String(), "text_hash": pl.String(), "spans": pl.List(pl.List(pl.Int64()))})
NOTHING_REPEATED = pl.DataFrame(schema=REPEATED_SCHEMA)


def cuts(documents: pl.DataFrame, hits: pl.DataFrame, rule: Cutting, repeated: pl.DataFrame = NOTHING_REPEATED) -> pl.DataFrame:
    """CUTS_SCHEMA by id and place: what goes from each document.

    `documents` has id, text_hash, source, text; `hits` are the matches that count, id, text_hash, question_id, benchmark,
    score, start, end, made on those very texts; `repeated` (REPEATED_SCHEMA) are passages of them that go as they are, with the
    empty lines around them. A document that matches leave nothing of, or in too many pieces, is not listed: it is to be left out.
    One that was made of repeated passages alone is listed, with nothing left.
    """
    found = dict(hits.group_by("id", "text_hash"))
    again = {(key, own): spans for key, own, spans in repeated.select(REPEATED_SCHEMA.names()).iter_rows()}
    rows: list[dict[str, object]] = []
    for document in documents.sort("id").iter_rows(named=True):
        key = (document["id"], document["text_hash"])
        if key in found or key in again:
            rows += _of_document(document, found.get(key), again.get(key, []), rule)
    return pl.DataFrame(rows, schema=CUTS_SCHEMA)


def _of_document(
    document: dict[str, object], matches: pl.DataFrame | None, repeated: Sequence[Sequence[int]], rule: Cutting
) -> list[dict[str, object]]:
    text = str(document["text"] or "")
    best_first = [] if matches is None else matches.sort("score", "question_id", descending=[True, False]).rows(named=True)
    kept = pieces(text, [(match["start"], match["end"]) for match in best_first], rule) if best_first else [(0, len(text))]
    if not kept:
        return []
    kept = _less(text, kept, repeated)
    left = joined(text, kept)
    common = {"id": document["id"], "text_hash": document["text_hash"], "source": document["source"], "left": len(left)}
    rows = []
    for start, end in removed(kept, len(text)):
        inside = next((match for match in best_first if match["start"] < end and match["end"] > start), None)
        why = {name: inside[name] for name in ("benchmark", "question_id", "score")} if inside else {}
        passage = any(low < end and high > start for low, high in repeated)
        reason = "contamination" if inside else "repeated" if passage else "short piece"
        rows.append({**common, **why, "start": start, "end": end, "reason": reason, "left_hash": text_hash(left)})
    return rows


def _less(text: str, kept: Sequence[tuple[int, int]], passages: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """The stretches that stay, less passages and the line ends around them."""
    gone = [_with_line_ends(text, start, end) for start, end in sorted((low, high) for low, high in passages)]
    found: list[tuple[int, int]] = []
    for start, end in kept:
        at = start
        for low, high in gone:
            if low < end and high > at:
                found.append((at, max(low, at)))
                at = high
        found.append((at, max(at, end)))
    return [(start, end) for start, end in found if text[start:end].strip()]


def _with_line_ends(text: str, start: int, end: int) -> tuple[int, int]:
    """A passage from behind the text before it on, up to where the next line that is not empty begins, its indentation apart."""
    while start > 0 and text[start - 1].isspace():
        start -= 1
    at = end
    while at < len(text) and text[at].isspace():
        at += 1
        if text[at - 1] == "\n":
            end = at
    return start, end


def pieces(text: str, spans: Sequence[tuple[int, int]], rule: Cutting) -> list[tuple[int, int]]:
    """The stretches of a text that stay, in order; none where nothing is long enough or they are too many."""
    between, at = [], 0
    for start, end in sorted(spans):
        low, high = _at_words(text, start - rule.margin, end + rule.margin)
        between.append((at, low))
        at = max(at, high)
    between = [(start, end) for start, end in [*between, (at, len(text))] if text[start:end].strip()]
    if len(between) > rule.pieces:
        return []
    return [(start, end) for start, end in between if len(text[start:end].strip()) >= rule.shortest]


def _at_words(text: str, start: int, end: int) -> tuple[int, int]:
    """A stretch widened to whole words, inside the text."""
    low, high = max(0, start), min(len(text), end)
    while low > max(0, start - WORD) and not text[low - 1].isspace():
        low -= 1
    while high < min(len(text), end + WORD) and not text[high].isspace():
        high += 1
    return low, high


def removed(kept: Sequence[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """The stretches of a text between those that stay."""
    edges = [0, *(edge for piece in kept for edge in piece), length]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]


def joined(text: str, kept: Sequence[tuple[int, int]]) -> str:
    """The text that is left."""
    return JOINT.join(text[start:end] for start, end in kept)


def without(documents: pl.DataFrame, taken: pl.DataFrame) -> pl.DataFrame:
    """Documents (id, text_hash, text, metadata, …) with their cuts (CUTS_SCHEMA) made: text, text_hash, and where prompts are."""
    spans = taken.group_by("id", "text_hash").agg("start", "end")
    rows = documents.join(spans, on=["id", "text_hash"], how="left", maintain_order="left")
    texts, hashes, metadata = [], [], []
    for text, own, told, starts, ends in rows.select("text", "text_hash", "metadata", "start", "end").iter_rows():
        if starts is not None:
            kept = removed(sorted(zip(starts, ends, strict=True)), len(text))  # what is between the cuts
            text, told = joined(text, kept), _moved_in(told, kept)
            own = text_hash(text)
        texts.append(text)
        hashes.append(own)
        metadata.append(told)
    columns = {"text": texts, "text_hash": hashes, "metadata": metadata}
    return rows.drop("start", "end").with_columns(pl.Series(n, values, dtype=pl.String) for n, values in columns.items())


def _moved_in(metadata: str | None, kept: Sequence[tuple[int, int]]) -> str | None:
    """Metadata whose marks of prompts are those of the text that is left."""
    told = json.loads(metadata) if metadata else {}
    marks = told.get("prompt_characters")
    if marks is None:
        return metadata
    marks = json.loads(marks) if isinstance(marks, str) else marks
    return json.dumps({**told, "prompt_characters": moved([[0, marks]] if isinstance(marks, int) else marks, kept)})


def moved(ranges: Sequence[Sequence[int]], kept: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Ranges of characters of a text, as ranges of what is left of it."""
    found, at = [], 0
    for start, end in kept:
        inside = [(max(low, start), min(high, end)) for low, high in ranges]
        found += [[at + low - start, at + high - start] for low, high in inside if high > low]
        at += end - start + len(JOINT)
    return found
