"""Matches cut out of documents: what stays, and the account of what went."""

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midtrain_dagster.decontaminate.cutting import CUTS_SCHEMA, cuts, joined, moved, pieces, removed, without
from midtrain_dagster.documents import text_hash
from midtrain_dagster.recipes.decontamination import Cutting

CLOSE = Cutting(margin=0, shortest=1)
HITS = {"question_id": pl.String, "benchmark": pl.String, "score": pl.Float64, "start": pl.Int64, "end": pl.Int64}


def frame(**texts: str) -> pl.DataFrame:
    rows = [{"id": i, "text_hash": text_hash(t), "source": "web", "text": t, "metadata": None} for i, t in texts.items()]
    return pl.DataFrame(rows, schema_overrides={"metadata": pl.String})


def hits(documents: pl.DataFrame, *rows: tuple[str, str, float, int, int]) -> pl.DataFrame:
    found = [(i, q, "gsm", score, start, end) for i, q, score, start, end in rows]
    made = pl.DataFrame(found, schema={"id": pl.String, **HITS}, orient="row")
    return made.join(documents.select("id", "text_hash"), on="id", how="left")


def test_the_span_goes_with_its_margin_up_to_whole_words():
    text = "Before it all. " + "QUESTION" + " and what follows."
    assert [text[a:b] for a, b in pieces(text, [(15, 23)], CLOSE)] == ["Before it all. ", " and what follows."]
    wider = Cutting(margin=3, shortest=1)
    assert [text[a:b] for a, b in pieces(text, [(15, 23)], wider)] == ["Before it ", " what follows."]


def test_short_pieces_go_and_too_many_pieces_leave_nothing():
    text = "a" * 300 + " Q1 " + "tiny" + " Q2 " + "b" * 300
    spans = [(301, 303), (309, 311)]
    assert pieces(text, spans, Cutting(margin=0, shortest=200)) == [(0, 301), (311, 612)]
    assert pieces(text, spans, Cutting(margin=0, shortest=400)) == []
    assert pieces(text, spans, Cutting(margin=0, shortest=1, pieces=2)) == []
    assert pieces("Q", [(0, 1)], CLOSE) == []


def test_the_account_names_every_stretch_and_gives_the_text_again():
    documents = frame(a="One two. QUESTION ten eleven.", b="nothing here", c="QUESTION")
    found = cuts(documents, hits(documents, ("a", "q2", 0.7, 9, 17), ("a", "q1", 0.9, 9, 17), ("c", "q1", 1.0, 0, 8)), CLOSE)
    assert found.schema == CUTS_SCHEMA
    assert found.select("id", "start", "end", "reason", "benchmark", "question_id", "score").rows() == [
        ("a", 9, 17, "contamination", "gsm", "q1", 0.9)  # nothing is left of c: it is not cut but left out
    ]
    left = without(documents, found)
    assert left["text"].to_list() == ["One two. \n\n ten eleven.", "nothing here", "QUESTION"]
    assert left["text_hash"][0] == found["left_hash"][0] == text_hash(left["text"][0])
    assert found["left"][0] == len(left["text"][0])


def test_repeated_passages_go_with_the_empty_lines_around_them():
    text = "MENU HOME\n\nOne two.\n  MENU HOME\n    indented\nQUESTION here\n\n MENU HOME \n"
    documents = frame(a=text, b="MENU HOME", c=f"MENU HOME {'x' * 20} QUESTION y")
    spans = [[i, i + 9] for i in range(len(text)) if text.startswith("MENU", i)]
    repeated = documents.select("id", "text_hash").with_columns(spans=pl.Series([spans, [[0, 9]], [[0, 9]]]))
    found = cuts(documents, hits(documents), CLOSE, repeated)
    assert found.filter(id="a")["reason"].to_list() == ["repeated"] * 3
    assert without(documents, found)["text"].to_list()[:2] == ["One two.\n\n    indented\nQUESTION here", ""]
    assert found.filter(id="b")["left"].to_list() == [0]
    start = text.index("QUESTION")
    both = hits(documents, ("a", "q1", 0.9, start, start + 8), ("c", "q1", 0.9, 31, 39))
    found = cuts(documents, both, Cutting(margin=0, shortest=1, pieces=1), repeated)
    assert found["id"].unique().sort().to_list() == ["b"]  # a and c are contaminated and fall into too many pieces
    found = cuts(documents, both, CLOSE, repeated).filter(id="a")
    assert found["reason"].to_list() == ["repeated", "repeated", "contamination", "repeated"]
    assert without(documents, found)["text"][0] == "One two.\n\n    indented\n\n\n here"


def test_a_text_that_changed_since_it_was_matched_is_not_cut():
    documents = frame(a="One two. QUESTION ten eleven.")
    stale = hits(documents, ("a", "q1", 0.9, 0, 5)).with_columns(text_hash=pl.lit("older"))
    assert cuts(documents, stale, CLOSE).is_empty()


def test_marks_of_prompts_move_with_the_text():
    documents = frame(a="ask QUESTION me then reply").with_columns(
        metadata=pl.lit(json.dumps({"prompt_characters": 15, "x": 1}))
    )
    found = cuts(documents, hits(documents, ("a", "q1", 0.9, 4, 12)), CLOSE)
    told = json.loads(without(documents, found)["metadata"][0])
    text = without(documents, found)["text"][0]
    assert told["x"] == 1
    assert [text[a:b] for a, b in told["prompt_characters"]] == ["ask ", " me"]


@settings(deadline=None)
@given(
    lines=st.lists(st.sampled_from(["MENU", " MENU ", "a b", "", " ", "漢ﷺ"]), max_size=12),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_cutting_repeated_lines_leaves_every_other_line_as_it_was(lines, ends):
    text, spans, at = ends.join(lines), [], 0
    for line in lines:
        if "MENU" in line:
            spans.append([at + line.index("M"), at + line.index("M") + 4])
        at += len(line) + len(ends)
    documents = frame(a=text)
    found = cuts(documents, hits(documents), CLOSE, documents.select("id", "text_hash", spans=pl.Series([spans])))
    left = without(documents, found)["text"][0]
    assert "MENU" not in left
    assert [line for line in left.split() if line] == [line for line in text.replace("MENU", "").split() if line]
    assert found.is_empty() or (found["left"][0], found["left_hash"][0]) == (len(left), text_hash(left))


@settings(deadline=None)
@given(
    text=st.text(alphabet="ab \n漢ﷺ", max_size=400),
    spans=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 40)), max_size=6),
    margin=st.integers(0, 20),
    shortest=st.integers(0, 50),
)
def test_kept_and_removed_are_the_whole_text(text, spans, margin, shortest):
    inside = [(min(start, len(text)), min(start + length, len(text))) for start, length in spans]
    kept = pieces(text, inside, Cutting(margin=margin, shortest=shortest, pieces=100))
    gone = removed(kept, len(text))
    assert "".join(text[a:b] for a, b in sorted([*kept, *gone])) == text
    assert not any(a < end and b > start for a, b in kept for start, end in inside if end > start)
    if kept:
        assert removed(gone, len(text)) == kept
        whole = moved([(0, len(text))], kept)
        assert [joined(text, kept)[a:b] for a, b in whole] == [text[a:b] for a, b in kept]


@pytest.mark.parametrize("text", ["", " ", "\u202eעברית وعربي", "漢字" * 300])
def test_unusual_texts_are_cut_like_any_other(text):
    documents = frame(a=text)
    found = cuts(documents, hits(documents, ("a", "q", 1.0, 0, 2)), Cutting())
    assert len(found) == (len(text) > 400)
