"""The alignment that visits few cells, beside one that visits all; and where a question begins to ask."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from midtrain_dagster.decontaminate.alignment_kernels import GAP, align
from midtrain_dagster.decontaminate.index import build
from midtrain_dagster.decontaminate.match import match
from midtrain_dagster.decontaminate.questions import of_rows
from midtrain_dagster.decontaminate.tails import tails
from midtrain_dagster.decontaminate.words import split
from midtrain_dagster.documents import documents

PASSAGE = (
    "The letter was carried over the pass by a boy of nine years. It told the council that the bridge at Orlin had fallen, that the mill "
    "stood under water, and that nobody had seen the miller since the second night of rain. The council sent four men with ropes."
)
ASKED = "Which of these made the council send its men to Orlin?"


def reference(question: np.ndarray, weights: np.ndarray, window: np.ndarray) -> tuple[float, int]:
    """Weight of the best path, and the longest run, by the whole table."""
    gap = float(GAP * weights.mean())
    score, run = np.zeros((len(question) + 1, len(window) + 1)), np.zeros((len(question) + 1, len(window) + 1), int)
    for i in range(1, len(question) + 1):
        for j in range(1, len(window) + 1):
            same = question[i - 1] == window[j - 1]
            beside = max(score[i - 1, j], score[i, j - 1]) - gap
            score[i, j] = max(0.0, beside, score[i - 1, j - 1] + weights[i - 1] if same else 0.0)
            run[i, j] = run[i - 1, j - 1] + 1 if same else 0
    return float(score.max()), int(run.max())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_few_cells_are_enough(data):
    letters = data.draw(st.integers(1, 8))
    question, window = (
        np.array(data.draw(st.lists(st.integers(1, letters), min_size=1, max_size=n)), np.uint64) for n in (20, 40)
    )
    weights = np.array(data.draw(st.lists(st.integers(1, 16), min_size=letters, max_size=letters)), np.float32) / 16
    own = weights[question.astype(int) - 1]
    first, end, common, mass, top, bottom, run = align(question, question, own, window, window)
    best, longest = reference(question, own, window)
    assert run == longest
    if best == 0:
        assert (first, end, common) == (0, 0, 0)
        return
    skipped = (end - first - common) + (bottom - top - common)
    assert np.isclose(mass - skipped * GAP * own.mean(), best, atol=1e-4)
    assert common <= min(end - first, bottom - top)


def test_a_tail_is_the_sentence_that_asks():
    texts = [
        f"{PASSAGE} {ASKED}",
        f"{PASSAGE}\n\n{ASKED}",
        "A cart costs 12 crowns. How much do three cost?",
        "Why did the river rise?",
        f"{PASSAGE} Orlin fell. Who sent them? Why so?",
        "",
    ]
    units = split(pl.Series(texts))
    first = tails(units, np.zeros(len(texts), bool))
    said = [
        units.data[units.starts[at] : units.text_offsets[row + 1]].tobytes().decode() if at < units.offsets[row + 1] else ""
        for row, at in enumerate(first)
    ]
    assert said == [ASKED, ASKED, "How much do three cost?", texts[3], "Who sent them? Why so?", ""]
    whole = tails(units, np.ones(len(texts), bool))
    assert units.offsets[1] - whole[0] == max(8, (units.offsets[1] - units.offsets[0]) // 5)


def test_another_question_on_the_same_passage_is_no_copy():
    index = build(of_rows("own", [{"question": f"{PASSAGE} {ASKED}", "answer": "the fallen bridge"}]))
    texts = [f"{PASSAGE} {ASKED}", f"{PASSAGE} How old was whoever brought this news across the mountains?", PASSAGE]
    found = match(documents([{"id": f"{n}", "text": text} for n, text in enumerate(texts)]), index, "cascade")
    best = {row["id"]: row["score"] for row in found.sort("score").iter_rows(named=True)}
    assert best["0"] == 1.0
    assert best["1"] < 0.5
    assert best["2"] < 0.5
