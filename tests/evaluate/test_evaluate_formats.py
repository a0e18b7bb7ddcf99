"""Every set's own row format through its task on a small model: prompts as published, scores where the answer is planted."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.evaluate.asking import ask
from midtrain_dagster.evaluate.catalog import CATALOG, MMLU, PLAYED
from midtrain_dagster.evaluate.harness import _configs, build
from midtrain_dagster.evaluate.names import named
from midtrain_dagster.evaluate.probes import KINDS, ruler_rows, words_of
from midtrain_dagster.evaluate.rows import Row
from midtrain_dagster.evaluate.shapes import shaped
from midtrain_dagster.evaluate.tasks import scoring, scrolls
from midtrain_dagster.sandbox import Sandbox

INFILLED = ("humaneval_multi_line_infilling", "humaneval_random_span_infilling", "humaneval_random_span_infilling_light")
ARC = {"id": "1", "question": "What burns?", "choices": {"text": ["wood", "stone"], "label": ["A", "B"]}, "answerKey": "A"}
HELLASWAG = {
    "activity_label": "Baking",
    "ctx_a": "A man bakes.",
    "ctx_b": "he",
    "endings": ["eats it.", "flies [title] Away", "sings.", "sleeps."],
    "label": "0",
}
TRIVIA = {"question": "Who wrote it", "answer": {"value": "Ada", "aliases": ["Ada", "Ada L"]}}
MBPP = {
    "task_id": 1,
    "text": "Write a function to add one.",
    "code": "def add(x):\n    return x + 1",
    "test_list": ["assert add(1) == 2", "assert add(2) == 3", "assert add(0) == 1"],
}
INFILLING = {
    "task_id": "SingleLineInfilling/HumanEval/0/L0",
    "prompt": "def add(x):\n",
    "canonical_solution": "    y = x + 1\n",
    "suffix": "    return y\n",
    "test": "def check(f):\n    assert f(1) == 2\n",
    "entry_point": "add",
}
CLOZE = {"context": "The cat sat on the", "choices": ["mat", "sea", "sky", "law"], "answer": 0}
COMPLETION = {"prompt": "def f(x):\n", "completion": "    return x"}
MATH = {"problem": "What is 1+1?", "level": "Level 1", "type": "Algebra", "solution": "It is $\\boxed{2}$."}


def _write(path: Path, name: str, rows: Iterable[dict[str, Any]]) -> None:
    (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("name", "file", "row", "prompt_end", "first"),
    [
        ("arc_challenge", "arc_challenge_test", ARC, "Question: What burns?\nAnswer:", " wood"),
        ("hellaswag", "hellaswag_validation", HELLASWAG, "Baking: A man bakes. He", " eats it."),
        ("triviaqa", "triviaqa_validation", TRIVIA, "Question: Who wrote it?\nAnswer:", None),
        ("mbpp", "mbpp_test", MBPP, "assert add(0) == 1\n[BEGIN]\n", None),
        ("humaneval_infilling", "humaneval_infilling_test", INFILLING, None, None),
        ("cloze", "cloze_test", CLOZE, "The cat sat on the", " mat"),
        ("code_completion", "code_completion_test", COMPLETION, "def f(x):\n", None),
        ("math", "math_test", MATH, "What is 1+1?\nAnswer:", None),
    ],
)
def test_a_row_becomes_its_prompt(tmp_path: Path, name: str, file: str, row: Any, prompt_end: str | None, first: str | None):
    _write(tmp_path, file, [row] * 3)
    built = build(name, CATALOG[name], tmp_path, num_fewshot=None if name == "mbpp" else 0, hub=False)
    (logged,) = ask(built, 1, seed=1234).values()
    arguments = logged[0]["arguments"]
    if prompt_end is not None:
        assert arguments[0][0].endswith(prompt_end)
    if first is not None:
        assert arguments[0][1] == first
    if name == "mbpp":
        assert arguments[0][0].count("[BEGIN]") == 4  # three shots, as by convention
    if name == "hellaswag":
        assert arguments[1][1] == " flies. Away"
    if name == "humaneval_infilling":
        assert "return y" in arguments[0][0]


def test_mmlu_takes_its_shots_from_the_subject_s_dev_rows(tmp_path: Path):
    def row(subject: str, number: int) -> dict[str, Any]:
        return {"question": f"{subject} {number}?", "choices": ["p", "q", "r", "s"], "answer": 1, "subject": subject}

    _write(tmp_path, "mmlu_dev", [row(subject, n) for subject in MMLU for n in range(5)])
    _write(tmp_path, "mmlu_test", [row("anatomy", 90), row("virology", 91)])
    built = build("mmlu", CATALOG["mmlu"], tmp_path, hub=False)
    assert sorted(built.tasks) == ["mmlu_anatomy", "mmlu_virology"]
    assert "2 of its 57 tasks have rows here" in built.notes
    prompt = ask({"mmlu_anatomy": built}["mmlu_anatomy"], None, seed=1234)["mmlu_anatomy"][0]["arguments"][0][0]
    assert all(f"anatomy {number}?" in prompt for number in (0, 1, 2, 3, 4, 90))
    assert "virology" not in prompt


def test_mmlu_rows_that_name_no_subject_are_asked_without_one(tmp_path: Path):
    row = {"question": "Which?", "choices": ["p", "q", "r", "s"], "answer": 1}
    _write(tmp_path, "mmlu_dev", [{**row, "question": f"shot {n}?"} for n in range(285)])
    _write(tmp_path, "mmlu_test", [row] * 7)
    built = build("mmlu", CATALOG["mmlu"], tmp_path, hub=False)
    (prompt,) = {sample["arguments"][0][0] for sample in ask(built, None, seed=1234)["mmlu"]}
    assert prompt.startswith("The following are multiple choice questions (with answers).\n\nshot 0?")
    assert prompt.count("shot") == 5
    assert any("which subject" in note for note in built.notes)
    assert built.group is None


def test_no_more_shots_than_there_are_rows(tmp_path: Path):
    _write(tmp_path, "arc_challenge_test", [{**ARC, "question": f"What burns {n}?"} for n in range(3)])
    built = build("arc_challenge", CATALOG["arc_challenge"], tmp_path, hub=False)
    (logged,) = ask(built, None, seed=1234).values()
    assert {sample["arguments"][0][0].count("Question:") for sample in logged} == {3}
    assert "2 shots: there are no more rows to take them from" in built.notes


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("ARC-Easy", ["arc_easy"]),
        ("arc", ["arc_easy", "arc_challenge"]),
        ("NaturalQuestions", ["nq_open"]),
        ("infilling", ["humaneval_infilling"]),
        ("humaneval_fix", ["humanevalfix"]),
        ("agentbench", ["dbbench", "os_interaction"]),
        ("mmlu_anatomy", ["mmlu_anatomy"]),
        ("bbh_cot_fewshot_word_sorting", ["bbh_word_sorting"]),
        ("bbh_word_sorting", ["bbh_word_sorting"]),
        ("hendrycks_math_num_theory", ["math_num_theory"]),
        ("multi_line_infilling", ["humaneval_multi_line_infilling"]),
        ("humaneval_random_span_infilling_light", ["humaneval_random_span_infilling_light"]),
        ("scrolls", [name for name in CATALOG if name.startswith("scrolls_")]),
    ],
)
def test_names_that_people_try(said: str, meant: list[str]):
    assert list(named(said)) == meant


def test_every_task_of_the_catalog_and_of_its_parts_is_there(tmp_path: Path):
    """The harness's task files by the names that the catalog gives them."""
    for name in (*CATALOG, "mmlu_anatomy", "bbh_word_sorting", "math_algebra", *INFILLED):
        benchmark = named(name)[name]
        if benchmark.directory != PLAYED and name != "minerva_math":
            assert list(_configs(benchmark)) == list(benchmark.tasks)
    with pytest.raises(MidtrainError, match=r"did you mean .*hellaswag"):
        named("helaswag")


def test_rows_of_other_layouts():
    def shape(name: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        return [row.values for row in shaped(name, [Row("f", 0, values)])]

    released = {"article": "Long.", "questions": [{"question": "a?", "options": ["x", "y"], "gold_label": 2}] * 2}
    assert [row["gold_label"] for row in shape("quality", released)] == [2, 2]
    assert shape("quality", {"article": "Long.", "question": "a?", "options": ["x", "y"], "answer": 1})[0]["gold_label"] == 2
    flat = {"document": "Long.", "question": "a?", "answers": ["x"]}
    assert shape("narrativeqa", flat) == [flat]
    nested = {"document": {"text": "", "summary": {"text": "Short."}}, "question": {"text": "a?"}, "answers": [{"text": "x"}]}
    assert shape("narrativeqa", nested) == [{**flat, "document": "Short."}]
    own = {"Question": "Who?", "Answer": {"Value": "Ada", "Aliases": ["A"]}}
    assert shape("triviaqa", own)[0]["answer"] == {"value": "Ada", "aliases": ["A"]}
    assert shape("mmlu", {"question": "?", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "C"})[0]["answer"] == 2
    stem = {"id": "1", "question": {"stem": "?", "choices": [{"text": "x", "label": "A"}]}, "answerKey": "A"}
    assert shape("arc_easy", stem)[0]["choices"] == {"text": ["x"], "label": ["A"]}
    assert shape("hellaswag", {**HELLASWAG, "label": 0})[0]["label"] == "0"
    with pytest.raises(MidtrainError, match="f: its rows are not in the format of narrativeqa"):
        shape("narrativeqa", {"text": "a"})


# SCROLLS

TEXT = "First paragraph.\n\nSecond paragraph."
SCROLLS = {
    "qasper": [{"id": "q", "pid": "q_0", "input": f"What is it?\n\n{TEXT}", "output": "a cat"}],
    "narrativeqa": [{"id": "n", "pid": "n_0", "input": f"Who?\n\n{TEXT}", "output": "Ada"}],
    "qmsum": [{"id": "m", "pid": "m_0", "input": f"Summarize.\n\n{TEXT}", "output": "A talk."}],
    "govreport": [{"id": "g", "pid": "g_0", "input": TEXT, "output": "A report."}],
    "summscreenfd": [{"id": "s", "pid": "s_0", "input": TEXT, "output": "A show."}],
    "quality": [{"id": "u", "pid": "u_0", "input": f"Which?\n\n (A) one (B) two  words (C) three (D) four\n\n{TEXT}", "output": "two words"}],
    "contractnli": [{"id": "c", "pid": "c_0", "input": f"It is so.\n\n{TEXT}", "output": "Entailment"}],
}  # fmt: skip
STOCK = {"qasper": "Qasper", "narrativeqa": "NarrativeQA", "qmsum": "QMSum", "govreport": "GovReport"}
STOCK |= {"summscreenfd": "SummScreenFD", "quality": "QuALITY", "contractnli": "ContractNLI"}


@pytest.mark.parametrize("name", sorted(SCROLLS))
def test_scrolls_prompts_are_the_harness_s(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    """Against the stock class's own functions, which can be called though it cannot be made without the hub.

    The module imports metrics that transformers 5 no longer has; of those it needs here one function, which is given.
    """
    from midtrain_dagster.evaluate.code import code_eval_in_sandbox

    metrics = ModuleType("transformers.data.metrics")
    metrics.squad_metrics = SimpleNamespace(normalize_answer=str.lower)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers.data.metrics", metrics)
    with code_eval_in_sandbox():
        from lm_eval.tasks.scrolls import task as stock
    _write(tmp_path, f"scrolls_{name}_validation", SCROLLS[name])
    built = build(f"scrolls_{name}", CATALOG[f"scrolls_{name}"], tmp_path, hub=False)
    (logged,) = ask(built, None, seed=1234).values()
    maker = object.__new__(getattr(stock, STOCK[name]))
    (row,) = SCROLLS[name]
    (doc,) = maker._process_doc({**row, "outputs": [row["output"]]})
    assert logged[0]["arguments"][0][0] == maker.doc_to_text(doc)
    if "choices" in doc:
        assert [arguments[1] for arguments in logged[0]["arguments"]] == [f" {choice}" for choice in doc["choices"]]
        assert logged[0]["doc"]["gold"] == doc["gold"]


def test_scrolls_scores():
    assert scrolls.f1({"outputs": ["a dog", "the red cat"]}, ["Red cat"]) == {"f1": 1.0}
    same = scrolls.rouge({"outputs": ["one two three four"]}, ["one two three four"])
    assert same == {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0, "rouge": 1.0}
    half = scrolls.rouge({"outputs": ["one two three four", "nothing like it"]}, ["one two"])
    assert half["rouge1"] == pytest.approx(2 / 3)
    assert half["rouge2"] == pytest.approx(1 / 2)  # 1 of 1 bigram given, of 3 wanted
    assert half["rouge"] == pytest.approx((2 / 3 * 1 / 2 * 2 / 3) ** (1 / 3))


# long context


def test_probes_fit_their_length_and_hold_what_they_ask_for():
    rows = ruler_rows(7, 2, (150, 600))
    assert len(rows) == 2 * 2 * len(KINDS)
    for row in rows:
        assert words_of(row["input"]) <= row["length"]
        assert row["kind"] == "cwe" or words_of(row["input"]) > row["length"] - 25
        assert all(value in row["input"] for value in row["outputs"])
    assert rows == ruler_rows(7, 2, (150, 600)) != ruler_rows(8, 2, (150, 600))
    several = [row for row in rows if row["kind"] == "niah_multivalue"]
    assert {len(row["outputs"]) for row in several} == {4}
    counted = next(row for row in rows if row["kind"] == "cwe")
    words = counted["input"].split("\n\n")[0].split()
    common = sorted(set(words), key=lambda word: -words.count(word))[:3]
    assert sorted(common) == sorted(counted["outputs"])
    chain = next(row for row in rows if row["kind"] == "vt")["input"]
    assert chain.index("VAR VAR_B = VAR VAR_A") < chain.index("VAR VAR_E = VAR VAR_D")
    with pytest.raises(MidtrainError, match="no room"):
        ruler_rows(0, 1, (10,))


def test_probe_scores():
    assert scoring.all_said({"outputs": ["12", "34"]}, [" 12 and 35"]) == {"string_match_all": 0.5}


# pass@k


def test_several_samples_of_a_problem_give_unbiased_pass_at_k(tmp_path: Path):
    try:
        Sandbox.find()
    except MidtrainError as reason:
        pytest.skip(f"NOT CHECKED: {reason}")
    fix = {"prompt": "def add(x):\n", "test": "assert add(1) == 2", "entry_point": "add"}
    answers = ["    return x + 1\n", "    return x\n", "    return x\n", "    return 1 + x\n"]
    scores = scoring.fixed({**fix, "test": "def check(f):\n    assert f(1) == 2\ncheck(add)"}, [answers])
    assert scores == {"pass@1": 0.5, "pass@4": 1.0}
    code = {"code": "def f(x): return x * 2", "input": "3", "output": "6"}
    assert scoring.input_predicted(code, [["1 + 2", "4"]]) == {"pass@1": 0.5, "pass@2": 1.0}
    _write(tmp_path, "mbpp_test", [MBPP] * 2)
    built = build("mbpp", CATALOG["mbpp"], tmp_path, hub=False, repeats=2)
    task = built.tasks["mbpp"]
    task.build_all_requests(limit=1)
    for instance in task.instances:
        instance.resps = ["def add(x):\n    return x + 1", "def add(x):\n    return x"]
    task.apply_filters()
    doc = task.instances[0].doc
    assert task.process_results(doc, [task.instances[0].filtered_resps["none"]]) == {"pass_at_1": 0.5}
