"""Functions of documents, run beside the solutions of questions."""

import json
from pathlib import Path

import polars as pl
import pytest

from midtrain_dagster.decontaminate import behaviour
from midtrain_dagster.decontaminate.behaviour import OTHER, SAME, behaviours
from midtrain_dagster.decontaminate.functions import program, task
from midtrain_dagster.decontaminate.index import build
from midtrain_dagster.decontaminate.match import match
from midtrain_dagster.decontaminate.questions import of_rows
from midtrain_dagster.decontaminate.scores import behaving
from midtrain_dagster.documents import documents
from midtrain_dagster.recipes.decontamination import Decontamination

ROWS = [json.loads(line) for line in (Path(__file__).parent / "functions.jsonl").read_text().splitlines()]
QUESTION = '''def rain_days(rain: list, limit: float) -> int:
    """ How often did more than `limit` fall?
    >>> rain_days([0.5, 2, 7.5], 1.0)
    2
    """
'''
ANSWER = "count = 0\n    for r in rain:\n        count += r > limit\n    return count"
REWRITTEN = "def wet(threshold, amounts):\n    return len([a for a in amounts if a > threshold])"
OTHER_TASK = "def rain_sum(rain, limit):\n    return sum(r for r in rain if r <= limit) - 7"


@pytest.fixture
def isolated() -> None:
    if behaviour.sandbox() is None:
        pytest.skip("NOT CHECKED: nothing isolates on this machine")


def _index(**chosen):
    return build(of_rows("own", [{"question": QUESTION, "answer": ANSWER}]), Decontamination(**chosen))


def test_functions_are_found_in_a_page():
    page = f"It rains.\n\n```python\nimport math\n{REWRITTEN}\n```\nAnd then:\n\n    def broken(:\n        pass\n\n    def whole(x):\n        return x\n"
    found = program(page)
    assert found is not None
    assert found.names == ("wet", "whole")
    assert "import math" in found.code
    assert "broken" not in found.code
    assert program("We define a function, def. by its values.") is None


def test_a_question_and_its_answer_are_a_program():
    """Also where reading the answer took its first line's indent away."""
    solved = task(QUESTION, ANSWER)
    assert solved is not None
    assert (solved.entry, solved.calls) == ("rain_days", ("([0.5, 2, 7.5], 1.0)",))
    assert task(QUESTION, "") is None
    assert task("How often does it rain?", "Twice.") is None
    called = task("Count the wet days.\nassert wet(1, [2]) == 1", REWRITTEN)
    assert called is not None
    assert (called.entry, called.calls) == ("wet", ("(1, [2])",))


@pytest.mark.usefixtures("isolated")
def test_what_functions_return_tells_a_rewriting_from_another_task():
    endless = "def rain_days(rain, limit):\n    while True:\n        pass"
    leaving = "import os\ndef rain_days(rain, limit):\n    os._exit(0)"
    talking = "def wet(rain, limit):\n    print('[9, 9, 9]')\n    return sum(r > limit for r in rain)"
    texts = [QUESTION + "    " + ANSWER, REWRITTEN, OTHER_TASK, endless, leaving, talking, "no code"]
    same, rewritten, other, *stopped, printed, none = behaviours(texts, [0] * len(texts), _index())
    assert (same, rewritten, printed) == (1.0, 1.0, 1.0)
    assert other < OTHER
    assert stopped == [0.0, 0.0]
    assert none is None
    assert behaviours(texts, [0] * len(texts), _index(run_functions=False)) == [None] * len(texts)


@pytest.mark.usefixtures("isolated")
def test_what_cannot_be_compared_is_no_evidence():
    missing = "import a_module_that_is_not_there\n" + REWRITTEN
    constant = "def wet(rain, limit):\n    return len([r for r in rain if r == 'dry'])"
    stricter = "def wet(rain, limit):\n    assert len(rain) > 0\n    return sum(r > limit for r in rain)"
    never = "def wet(rain, limit, days, places):\n    return 0"
    said = behaviours([missing, constant, stricter, never], [0] * 4, _index())
    assert said[:2] == [None, None]
    assert said[2] is not None
    assert said[2] >= SAME
    assert said[3] == 0.0


@pytest.mark.usefixtures("isolated")
def test_what_returns_what_it_is_given_solves_nothing():
    joined = {
        "question": 'def concatenate(parts: list) -> str:\n    """ Put the strings of a list together. """\n',
        "answer": "return ''.join(parts)",
    }
    index = build(of_rows("own", [joined]))
    same = "def glue(rows):\n    whole = ''\n    for row in rows:\n        whole = whole + row\n    return whole"
    printable = "def visible(text):\n    return ''.join(c for c in text if c.isprintable()) if isinstance(text, str) else None"
    glued, identity = behaviours([same, printable], [0, 0], index)
    assert glued == 1.0
    assert identity is None or identity < OTHER


def test_functions_of_which_other_things_are_said_must_agree_in_nearly_everything():
    pairs = pl.DataFrame({"behaves": [0.6, 0.6, 0.95, 0.6, None], "cosine": [0.6, 0.4, 0.4, None, 0.4]})
    told = pairs.select(score=behaving(pl.lit(0.7), pl.col("cosine")))["score"].to_list()
    assert told == [0.8, 0.49, 0.975, 0.8, 0.7]


@pytest.mark.usefixtures("isolated")
def test_own_rewritten_functions_and_near_misses():
    index = build(of_rows("own", [{k: row[k] for k in ("question", "answer")} for row in ROWS[:24]]))
    same = behaviours([row["rephrased"] for row in ROWS[:24]], range(24), index)
    near = behaviours([row["near"] for row in ROWS[:24]], range(24), index)
    assert sum(share is not None and share >= SAME for share in same) >= 16
    assert sum(share is not None and share >= SAME for share in near) <= 1


@pytest.mark.usefixtures("isolated")
def test_the_cascade_decides_by_it():
    wording = '    """ In the list of daily rain, how often did more than the limit fall? """\n'
    texts = [REWRITTEN.replace("\n", "\n" + wording, 1), OTHER_TASK.replace("\n", "\n" + wording, 1)]
    docs = documents([{"id": f"{i}", "text": text} for i, text in enumerate(texts)])
    found = {row["id"]: row for row in match(docs, _index(), "cascade").iter_rows(named=True)}
    assert found["0"]["score"] >= 0.9
    assert found["0"]["behaves"] == 1.0
    assert "1" not in found or found["1"]["score"] < 0.5
