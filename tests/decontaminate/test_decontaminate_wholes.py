import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from midtrain_dagster.cli import application
from midtrain_dagster.decontaminate.added import follow
from midtrain_dagster.decontaminate.decide import decide
from midtrain_dagster.decontaminate.index import build
from midtrain_dagster.decontaminate.match import match
from midtrain_dagster.decontaminate.questions import of_rows
from midtrain_dagster.decontaminate.resemblance import prose
from midtrain_dagster.decontaminate.whole import examples
from midtrain_dagster.documents import documents
from midtrain_dagster.recipes.decontamination import Decontamination

ROWS = [json.loads(line) for line in (Path(__file__).parent / "paraphrases.jsonl").read_text().splitlines()]
QUESTIONS = of_rows("own", [{k: row[k] for k in ("question", "answer", "choices")} for row in ROWS])


def _flagged(texts, questions=QUESTIONS, encoder=None):
    docs = documents([{"id": f"{i:03}", "text": text} for i, text in enumerate(texts)])
    choice = Decontamination()
    return decide(match(docs, build(questions, choice), encoder=encoder), choice, docs["id"])["contaminated"].to_list()


def test_word_problems_are_known_by_their_numbers_without_an_encoder():
    """Reworded problems are found; others of the same kind, with other numbers, are not."""
    problems = [row for row in ROWS if row["kind"] == "word problem"]
    assert sum(_flagged([row["rephrased"] for row in problems])) >= 6
    assert sum(_flagged([row["near"] for row in problems])) == 0


def test_tasks_are_known_by_their_examples():
    tasks = [row for row in ROWS if row["kind"] == "code"]
    assert sum(_flagged([row["rephrased"] for row in tasks])) >= 6
    assert sum(_flagged([row["near"] for row in tasks])) == 0


def test_examples_and_prose_of_a_function():
    text = 'def f(a, b):\n    """Turn the list of values around once.\n    >>> f([1, 2], "x")\n    [2, 1]\n    g(3) == 4\n    """\n'
    assert list(examples(text)) == ["[1,2],'x':[2,1]", "3:4"]
    assert prose(text) == "Turn the list of values around once."
    assert prose("no code at all") == "no code at all"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("not ( True ) and ( True ) is", True),
        ("Question 3: NOT ( True )  and ( True ) is", True),
        ("it is not ( True ) and ( True ) is", False),
        ("not ( False ) and ( True ) is", False),
    ],
)
def test_a_short_question_is_found_as_a_line_of_its_own(line, expected):
    asked = of_rows("bool", [{"input": "not ( True ) and ( True ) is", "target": "False"}])
    assert _flagged([f"Some text.\n{line}\nFalse"], asked) == [expected]


def test_a_shared_passage_with_another_question_is_another_question():
    passage = (
        "The charter of the harbour town granted its fishers the right to sell salted herring without a toll for nine years. "
    )
    asked = of_rows("reading", [{"question": passage + "Which later treaty ended the privilege that the excerpt describes?"}])
    other = passage + "How many families does a modern census of inland farmers name?"
    assert _flagged([passage + "Which later treaty ended the privilege that the excerpt describes?", other], asked) == [
        True,
        False,
    ]


def test_command_writes_matches_and_decisions(tmp_path):
    (tmp_path / "docs.jsonl").write_text(
        json.dumps({"id": "a", "text": ROWS[0]["question"]})
        + "\n"
        + json.dumps({"id": "b", "text": "The sea was calm."})
        + "\n"
    )
    (tmp_path / "questions").mkdir()
    (tmp_path / "questions" / "own.jsonl").write_text(json.dumps({"question": ROWS[0]["question"], "answer": "46"}) + "\n")
    where = ["--in", str(tmp_path / "docs.jsonl"), "--questions", str(tmp_path / "questions"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(application(), ["decontaminate", *where, "--no-embed"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert (printed["documents"], printed["contaminated"], printed["encoder"]) == (2, 1, None)
    decisions = pl.read_parquet(tmp_path / "out" / "decisions.parquet")
    assert decisions["contaminated"].to_list() == [True, False]
    assert pl.read_parquet(tmp_path / "out" / "matches.parquet")["question_id"].n_unique() == 1


def test_questions_that_are_added_or_gone_leave_what_all_at_once_would_have_found():
    """Scores and leads too: they hang on how rare a word is among all questions."""
    docs = documents(
        [{"id": f"{part}{i:02}", "text": row[part]} for i, row in enumerate(ROWS) for part in ("question", "near")]
    )
    choice, asked = Decontamination(), []

    def look(some, index):
        asked.append((len(some), len(index.questions)))
        return match(some, index)

    def follow_to(later, now):
        before = match(docs, build(now, choice))
        return before, pl.concat(follow([docs[:30], docs[30:]], before["id"], now["question_id"], later, choice, look))

    early, whole = QUESTIONS[:9], match(docs, build(QUESTIONS, choice))
    before, followed = follow_to(QUESTIONS, early)
    assert followed.sort("id", "question_id", "start", "question_part").equals(whole)
    shared = before.join(whole, on=["id", "question_id", "start"], suffix="_all")
    assert (shared["score"] != shared["score_all"]).any(), "the questions that came change what earlier ones score"
    assert asked[0] == (30, len(QUESTIONS) - 9)
    assert all(count < 30 for count, among in asked if among == len(QUESTIONS))

    _, fewer = follow_to(early, QUESTIONS)
    assert fewer.equals(match(docs, build(early, choice)))


def test_a_translation_is_known_by_its_numbers_and_code_with_the_same_numbers_is_not():
    asked = of_rows(
        "own", [{"question": "Greta Malmö packs 1840 pears and 275 plums in 36 crates. How many fit in one?", "answer": "58"}]
    )
    german = "Greta Malmö packt 1840 Birnen und 275 Pflaumen in 36 Kisten. Wie viele passen in eine hinein? Größe zählt nicht."
    other = "Greta Malmö packt 1841 Birnen und 290 Pflaumen in 37 Kisten. Wie viele passen in eine hinein? Größe zählt nicht."
    code = "image = resize(pixels, height=1840, width=275, channels=36)\nassert numpy.all(mask)\nconfig.update(axis=None, pad=zeros(rows))"
    assert _flagged([german, other, code], asked) == [True, False, False]
