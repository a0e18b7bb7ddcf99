import json

import pytest

from midtrain_dagster.decontaminate.questions import QUESTIONS_SCHEMA, read_questions
from midtrain_dagster.errors import MidtrainError

LAYOUTS = {
    "gsm8k": (
        {"question": "How many pears?", "answer": "Two and one.\n#### 3"},
        ("How many pears?", "Two and one.\n#### 3", []),
    ),
    "math": ({"problem": "Find $x$.", "solution": "$x=2$", "level": "1"}, ("Find $x$.", "$x=2$", [])),
    "humaneval": ({"task_id": "T/0", "prompt": "def f():", "canonical_solution": " pass"}, ("def f():", "pass", [])),
    "mmlu": ({"question": "Which?", "choices": ["red", "blue"], "answer": 1}, ("Which?", "blue", ["red", "blue"])),
    "arc": (
        {"id": "A", "question": "Which?", "choices": {"text": ["red", "blue"], "label": ["A", "B"]}, "answerKey": "B"},
        ("Which?", "blue", ["red", "blue"]),
    ),
    "winogrande": (
        {"sentence": "The cup fits _ .", "option1": "box", "option2": "bag", "answer": "2"},
        ("The cup fits _ .", "bag", ["box", "bag"]),
    ),
    "cruxeval": ({"code": "def f(x): return x", "input": "2", "output": "2"}, ("def f(x): return x\nf(2)", "2", [])),
    "cloze": (
        {"context": "The cat sat on the", "choices": ["mat", "sea"], "answer": 0},
        ("The cat sat on the", "mat", ["mat", "sea"]),
    ),
    "narrativeqa": (
        {
            "document": {"text": "Long."},
            "question": {"text": "Who?", "tokens": ["Who"]},
            "answers": [{"text": "Ann"}, {"text": "Bo"}],
        },
        ("Who?", "Ann\nBo", []),
    ),
    "nq": ({"question": "who sang it", "answer": ["Ann", "Bo"]}, ("who sang it", "Ann\nBo", [])),
    "triviaqa": ({"question": "Who?", "answer": {"value": "Ann", "aliases": ["A."]}}, ("Who?", "Ann", [])),
    "bbh": ({"input": "not True is", "target": "False"}, ("not True is", "False", [])),
    "hellaswag": (
        {"ctx": "A man sits.", "ctx_a": "A man", "endings": ["He runs.", "He sings."], "label": "1"},
        ("A man sits.", "He sings.", ["He runs.", "He sings."]),
    ),
    "mbpp": (
        {"task_id": 1, "text": "Write add.", "code": "def add(): 1", "test_list": ["assert add() == 1"]},
        ("Write add.\nassert add() == 1", "def add(): 1", []),
    ),
    "dbbench": (
        {
            "description": "Which town?",
            "label": ["Ulm"],
            "table": {"table_name": "T", "table_info": {"columns": [{"name": "Town"}]}},
        },
        ("Which town?", "Ulm", []),
    ),
    "text": ({"text": "A rewritten question."}, ("A rewritten question.", None, [])),
}


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_layout(name, tmp_path):
    row, expected = LAYOUTS[name]
    path = tmp_path / f"{name}_test.jsonl"
    path.write_text(json.dumps(row) + "\n")
    frame = read_questions([path])
    assert frame.schema == QUESTIONS_SCHEMA
    found = frame.row(0, named=True)
    assert (found["question"], found["answer"], found["choices"]) == expected
    assert found["benchmark"] == f"{name}_test"


def test_file_without_header_is_read_as_mmlu(tmp_path):
    path = tmp_path / "algebra.csv"
    path.write_text('"Find the degree, if any.",0,4,2,6,B\nWhat is it?,1,2,3,4,A\n')
    frame = read_questions([path])
    assert frame["question"].to_list() == ["Find the degree, if any.", "What is it?"]
    assert frame["answer"].to_list() == ["4", "1"]


def test_csv_with_header_and_bbh_json(tmp_path):
    (tmp_path / "a.csv").write_text("question,A,B,answer\nWhich one?,red,blue,B\n")
    (tmp_path / "b.json").write_text(json.dumps({"canary": "c", "examples": [{"input": "One?", "target": "yes"}]}, indent=1))
    frame = read_questions([tmp_path])
    assert frame.select("benchmark", "question", "answer").rows() == [("a", "Which one?", "blue"), ("b", "One?", "yes")]


def test_unknown_layout_names_keys_and_option(tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps({"frage": "Wie viele?", "daten": {"gold": "3"}}) + "\n")
    with pytest.raises(MidtrainError, match=r"frage, daten.*--mapping"):
        read_questions([path])
    frame = read_questions([path], {"question": "frage", "answer": "daten.gold"})
    assert frame.row(0, named=True)["answer"] == "3"
    with pytest.raises(MidtrainError, match="nicht"):
        read_questions([path], {"question": "nicht"})


def test_ids_are_stable_and_equal_questions_are_one(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "Same one?", "answer": "a"}\n' * 2 + '{"question": " "}\n{"question": "Other?"}\n')
    first, second = read_questions([path]), read_questions([path])
    assert first.equals(second)
    assert first["row"].to_list() == [0, 3]
    assert read_questions([("named", path)])["benchmark"].unique().to_list() == ["named"]


def test_an_article_with_several_questions_is_as_many(tmp_path):
    asked = [{"question": f"Why {n}?", "options": ["a", "b"], "gold_label": 1} for n in range(2)]
    (tmp_path / "quality.jsonl").write_text(json.dumps({"article": "Long.", "title": "T", "questions": asked}) + "\n")
    found = read_questions([tmp_path / "quality.jsonl"])
    assert found["question"].to_list() == ["Why 0?", "Why 1?"]
    assert found["row"].to_list() == [0, 0]
