"""Seeded rows of every benchmark of the catalog, each in its data set's own format."""

from typing import Any

import pytest

from midtrain_dagster.evaluate.embedded import function_call_rows, needle_rows, reasoning_rows
from midtrain_dagster.evaluate.simulated import shell_rows, tool_step_rows

WORDS = ("river", "copper", "lantern", "orchard", "velvet", "harbour", "thunder", "meadow")


def general(n: int) -> dict[str, list[dict[str, Any]]]:
    """Rows of the general benchmarks, as the hub has them."""
    words = [WORDS[i % len(WORDS)] for i in range(n)]
    choices = [[WORDS[(i + j) % len(WORDS)] for j in range(4)] for i in range(n)]
    arc = [
        {
            "id": f"{i}",
            "question": f"What follows {w}?",
            "choices": {"text": choices[i], "label": list("ABCD")},
            "answerKey": "A",
        }
        for i, w in enumerate(words)
    ]
    return {
        "mmlu_test": [
            {"question": f"{s} {i}?", "choices": choices[i], "answer": i % 4, "subject": s} for s in ("anatomy", "virology") for i in range(n)
        ],
        "mmlu_dev": [{"question": f"{s} {i}?", "choices": choices[0], "answer": 1, "subject": s} for s in ("anatomy", "virology") for i in range(5)],
        "triviaqa_validation": [{"question": f"Who saw the {w}?", "answer": {"value": "Ada", "aliases": ["Ada", "Ada L"]}} for w in words],
        "nq_open_validation": [{"question": f"who saw the {w}", "answer": ["Ada"]} for w in words],
        "nq_open_train": [{"question": f"who made the {w}", "answer": ["Bob"]} for w in WORDS],
        "arc_easy_test": arc,
        "arc_challenge_test": arc,
        "hellaswag_validation": [
            {"activity_label": "Walking", "ctx_a": f"A man sees a {w}.", "ctx_b": "he", "ctx": "", "endings": ["runs.", "sings.", "sits.", "eats."], "label": "1"}
            for w in words
        ],
        "winogrande_validation": [
            {"sentence": f"The {w} hit the wall because _ was fast.", "option1": f"the {w}", "option2": "the wall", "answer": "1"} for w in words
        ],
        "bbh_boolean_expressions": [{"input": "not ( True ) and ( True ) is", "target": "False"}] * n,
        "bbh_word_sorting": [{"input": f"Sort the following words alphabetically: List: {w} apple", "target": f"apple {w}"} for w in words],
    }  # fmt: skip


def mathematics_and_code(n: int) -> dict[str, list[dict[str, Any]]]:
    """GSM8K, MATH, HumanEval and what is made from it, MBPP, CRUXEval."""
    sums = [{"question": f"What is {i} and {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i}"} for i in range(n + 6)]
    code = [
        {
            "task_id": f"HumanEval/{i}",
            "prompt": f'def add{i}(x):\n    """ Add {i}. """\n',
            "declaration": f"def add{i}(x):\n",
            "docstring": f"Add {i}.",
            "canonical_solution": f"    return x + {i}\n",
            "buggy_solution": f"    return x - {i}\n",
            "suffix": "",
            "test": f"def check(f):\n    assert f(1) == {1 + i}\n",
            "entry_point": f"add{i}",
        }
        for i in range(n)
    ]
    return {
        "gsm8k_test": sums[:n],
        "gsm8k_train": sums[n:],
        "math_test": [
            {"problem": f"What is {i}+1?", "level": "Level 1", "type": kind, "solution": f"It is $\\boxed{{{i + 1}}}$."}
            for kind in ("Algebra", "Number Theory")
            for i in range(n)
        ],
        "humaneval_test": code,
        "humaneval_infilling_test": code,
        "humanevalpack_python_test": code,
        "mbpp_test": [
            {"task_id": 11 + i, "text": f"Write a function to add {i}.", "code": f"def add(x):\n    return x + {i}", "test_list": [f"assert add({j}) == {i + j}" for j in range(3)]}
            for i in range(n)
        ],
        "cruxeval_test": [{"id": f"sample_{i}", "code": f"def f(x):\n    return x * {i}", "input": "2", "output": f"{2 * i}"} for i in range(n)],
    }  # fmt: skip


def agents(n: int) -> dict[str, list[dict[str, Any]]]:
    table = {
        "table_name": "results",
        "table_info": {"columns": [{"name": "team", "type": "TEXT"}, {"name": "points", "type": "INT"}], "rows": [["reds", "4"], ["blues", "7"]]},
    }  # fmt: skip
    asked = {"description": "How many points have the blues?", "label": ["7"], "type": ["other"], "table": table}
    return {
        "agentbench_dbbench_standard": [asked] * n,
        "agentbench_os_test": shell_rows(0, n),
        "tool_steps_test": tool_step_rows(0, n),
        "function_call_test": function_call_rows(0, n),
    }


def long(n: int) -> dict[str, list[dict[str, Any]]]:
    """NarrativeQA as on the hub, QuALITY as released (an article and its questions), SCROLLS, probes."""
    text = "Once there was a clock.\n\nIt struck thirteen on the night before the fair."
    nested = {
        "document": {"id": "d", "kind": "book", "summary": {"text": "A clock."}, "text": text},
        "question": {"text": "What struck?"},
    }
    questions = [
        {"question": f"What struck {i}?", "options": ["a clock", "a mill", "a man", "a road"], "gold_label": 1}
        for i in range(n)
    ]
    scrolls = {
        "qasper": (f"What struck?\n\n{text}", "a clock"),
        "narrativeqa": (f"What struck?\n\n{text}", "a clock"),
        "qmsum": (f"Summarize.\n\n{text}", "A clock struck."),
        "govreport": (text, "A clock struck."),
        "summscreenfd": (text, "A clock struck."),
        "quality": (f"Which?\n\n (A) a clock (B) a mill (C) a man (D) a road\n\n{text}", "a clock"),
        "contractnli": (f"It struck.\n\n{text}", "Entailment"),
    }
    rows: dict[str, list[dict[str, Any]]] = {
        f"scrolls_{name}_validation": [{"id": f"{i}", "pid": f"{i}_0", "input": given, "output": answer} for i in range(n)]
        for name, (given, answer) in scrolls.items()
    }
    rows["scrolls_qasper_validation"].append(
        {**rows["scrolls_qasper_validation"][0], "output": "the clock"}
    )  # a second reference
    answers = [{"text": "A clock"}, {"text": "the clock"}]
    return rows | {
        "narrativeqa_test": [{**nested, "answers": answers}] * n,
        "quality_validation": [{"article_id": "1", "article": text, "questions": questions}],
        "needle_test": needle_rows(0, n, lengths=(40,)),
        "reasoning_gym_test": reasoning_rows(0, 1, tasks=("chain_sum", "letter_counting")),
        "cloze_test": [{"context": "The cat sat on the", "choices": ["mat", "sea", "sky", "law"], "answer": 0}] * n,
        "code_completion_test": [{"prompt": "def f(x):\n", "completion": "    return x"}] * n,
    }


def every(n: int) -> dict[str, list[dict[str, Any]]]:
    """File name → rows, `n` of most."""
    return general(n) | mathematics_and_code(n) | agents(n) | long(n)


@pytest.fixture(scope="session")
def seeded() -> dict[str, list[dict[str, Any]]]:
    return every(3)
