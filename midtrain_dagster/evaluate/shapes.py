"""Rows of sets that come in more than one layout, brought into the one that the task files read.

A row keeps its file and number through this, so that contamination found in a row finds its questions.
"""

from collections.abc import Callable, Mapping
from typing import Any

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.evaluate.rows import Row

Values = Mapping[str, Any]


def shaped(benchmark: str, rows: list[Row]) -> list[Row]:
    """The rows as the task of `benchmark` wants them: as they are, for most."""
    try:
        if benchmark.startswith("scrolls_"):
            return _by_question(rows)
        shape = SHAPES.get(benchmark)
        return rows if shape is None else [row._replace(values=values) for row in rows for values in shape(row.values)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MidtrainError(f"{rows[0].file}: its rows are not in the format of {benchmark}: {error!r}") from None


def _quality(values: Values) -> list[dict[str, Any]]:
    """QuALITY's own rows hold an article and its questions; the hub's one question, with `answer` counted from 0."""
    if "questions" in values:
        shared = {name: value for name, value in values.items() if name != "questions"}
        return [{**shared, **question} for question in values["questions"] if question.get("gold_label") is not None]
    if "gold_label" not in values and "answer" in values:
        return [{**values, "gold_label": int(values["answer"]) + 1}]
    return [dict(values)]


def _narrativeqa(values: Values) -> list[dict[str, Any]]:
    """The hub's rows nest: document.text (or its summary, where the text is left out), question.text, answers[].text."""
    document, question = values["document"] if "document" in values else values["summary"], values["question"]
    if isinstance(document, Mapping):
        document = document.get("text") or document["summary"]["text"]
    if isinstance(question, Mapping):
        question = question["text"]
    answers = values["answers"] if "answers" in values else [values["answer1"], values["answer2"]]  # the paper's own csv
    told = [answer["text"] if isinstance(answer, Mapping) else answer for answer in answers]
    return [{"document": document, "question": question, "answers": told}]


def _triviaqa(values: Values) -> list[dict[str, Any]]:
    """The set's own file writes Question and Answer, with Value and Aliases; the hub in lower case."""
    if "Answer" not in values:
        return [dict(values)]
    answer = values["Answer"]
    aliases = [*answer.get("Aliases", []), *answer.get("HumanAnswers", [])]
    return [
        {
            **values,
            "question": values["Question"],
            "answer": {"value": answer["Value"], "aliases": aliases or [answer["Value"]]},
        }
    ]


def _arc(values: Values) -> list[dict[str, Any]]:
    """AI2's own file nests the question: question.stem, question.choices[] with text and label."""
    question = values.get("question")
    if not isinstance(question, Mapping):
        return [dict(values)]
    choices = {name: [choice[name] for choice in question["choices"]] for name in ("text", "label")}
    return [{**values, "question": question["stem"], "choices": choices}]


def _hellaswag(values: Values) -> list[dict[str, Any]]:
    """The label is text in the hub's rows and a number in the set's own; the two halves of the context may be missing."""
    ctx = str(values.get("ctx", ""))
    halves = {"ctx_a": values.get("ctx_a", ctx), "ctx_b": values.get("ctx_b", "")}
    return [{**values, **halves, "label": str(values["label"])}]


def _mbpp(values: Values) -> list[dict[str, Any]]:
    """The sanitized set writes `prompt` where the full one writes `text`."""
    return [{**values, "text": values.get("text", values.get("prompt"))}]


def _choices_by_letter(values: Values) -> list[dict[str, Any]]:
    """MMLU's own tables have columns A to D and the answer as a letter."""
    if "choices" in values:
        answer = values["answer"]
        return [{**values, "answer": "ABCD".index(answer) if isinstance(answer, str) and answer in "ABCD" else int(answer)}]
    return [{**values, "choices": [values[letter] for letter in "ABCD"], "answer": "ABCD".index(str(values["answer"]))}]


SHAPES: dict[str, Callable[[Values], list[dict[str, Any]]]] = {
    "quality": _quality,
    "narrativeqa": _narrativeqa,
    "triviaqa": _triviaqa,
    "arc_easy": _arc,
    "arc_challenge": _arc,
    "hellaswag": _hellaswag,
    "mbpp": _mbpp,
    "mmlu": _choices_by_letter,
}


def _by_question(rows: list[Row]) -> list[Row]:
    """SCROLLS writes a row for each reference: those that share an id are one question with several."""
    found: dict[str, Row] = {}
    for row in rows:
        values = row.values
        answers = list(values.get("outputs") or [values["output"]])
        known = found.get(values["id"])
        if known is None:
            first = {"id": values["id"], "pid": values.get("pid"), "input": values["input"], "outputs": answers}
            found[values["id"]] = row._replace(values=first)
        else:
            known.values["outputs"] += answers
    return list(found.values())
