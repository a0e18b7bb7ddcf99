"""The row formats of the question sets: which field is the question, the answer, the options, the passage."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from midtrain_dagster.errors import MidtrainError

QUESTION_FIELDS = (
    "question", "problem", "input", "query", "prompt", "sentence", "description", "instruction", "ctx", "premise", "goal",
    "question_stem", "title", "text", "content",
)  # fmt: skip
ANSWER_FIELDS = (
    "answer", "answers", "target", "solution", "canonical_solution", "output", "response", "completion", "label", "answerKey",
    "final_answer", "reference", "gold", "code",
)  # fmt: skip
CHOICE_FIELDS = ("choices", "options", "endings", "mc1_targets", "candidates")
PASSAGE_FIELDS = ("passage", "context", "support", "article", "story", "evidence", "background")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Question(NamedTuple):
    """One question as its data set means it."""

    question: str
    answer: str | None
    choices: list[str]
    passage: str | None


def rows_of(row: Any) -> list[Any]:
    """The rows in a row: QuALITY, as released, has an article and several questions on it."""
    if not isinstance(row, dict) or not isinstance(row.get("questions"), list):
        return [row]
    shared = {name: value for name, value in row.items() if name != "questions"}
    return [{**shared, **question} for question in row["questions"] if isinstance(question, dict)] or [row]


def question_of(row: Any, mapping: Mapping[str, str] | None, where: str) -> Question | None:
    """The question in a row, or None for a row that is empty.

    Raises MidtrainError for a layout that is not known, naming its keys and the way to map them.
    """
    if mapping:
        return _mapped(row, mapping, where)
    if isinstance(row, list):
        return _columns(row, where)
    if not isinstance(row, dict):
        raise MidtrainError(f"{where}: expected a record of fields, found a {type(row).__name__}")
    special = _sql_table(row) or _minimal_pair(row) or _hellaswag(row) or _mbpp(row) or _code_reasoning(row) or _cloze(row)
    return special or _named(row, where)


def _mapped(row: Any, mapping: Mapping[str, str], where: str) -> Question:
    unknown = set(mapping) - {"question", "answer", "choices", "passage"}
    if unknown or "question" not in mapping:
        raise MidtrainError(f"mapping: name `question` and any of `answer`, `choices`, `passage`; found {', '.join(mapping)}")
    found = {part: _reach(row, field) for part, field in mapping.items()}
    if found["question"] is None:
        keys = ", ".join(row) if isinstance(row, dict) else f"{len(row)} columns"
        raise MidtrainError(f"{where}: the mapping's `{mapping['question']}` is not in the row; it has {keys}")
    choices = _choices(found.get("choices"))
    return Question(
        _text(found["question"]), _answer(found.get("answer"), choices), choices, _text(found.get("passage")) or None
    )


def _reach(row: Any, field: str) -> Any:
    for step in field.split("."):
        if isinstance(row, dict):
            row = row.get(step)
        elif isinstance(row, list) and step.isdigit() and int(step) < len(row):
            row = row[int(step)]
        else:
            return None
    return row


def _columns(row: list[str], where: str) -> Question:
    """A file without a header, as MMLU's: question, the options, the answer's letter."""
    if len(row) >= 4 and row[-1].strip() in tuple(LETTERS):
        return Question(row[0], _answer(row[-1].strip(), row[1:-1]), row[1:-1], None)
    if len(row) in (1, 2):
        return Question(row[0], row[1] if len(row) == 2 else None, [], None)
    raise MidtrainError(
        f"{where}: {len(row)} columns without names, and the last is no option letter; "
        'say which is what with --mapping, as {"question": "0", "answer": "3"}'
    )


def _named(row: Mapping[str, Any], where: str) -> Question:
    if isinstance(row.get("question"), dict):  # ARC as first published: {"stem": …, "choices": [{"text", "label"}]}
        inner = row["question"]
        if "text" in inner:  # NarrativeQA as on the hub: {"text", "tokens"}, and answers likewise
            answers = [a.get("text") if isinstance(a, dict) else a for a in row.get("answers") or []]
            document = row.get("document") or {}
            summary = document.get("summary") if isinstance(document, dict) else None
            passage = _text(summary.get("text")) if isinstance(summary, dict) else None
            return Question(_text(inner["text"]), _answer(answers, []), [], passage or None)
        choices, labels = _choices(inner.get("choices")), _labels(inner.get("choices"))
        return Question(_text(inner.get("stem")), _answer(row.get("answerKey"), choices, labels), choices, None)
    question = next((f for f in QUESTION_FIELDS if isinstance(row.get(f), str) and row[f] is not None), None)
    if question is None:
        raise MidtrainError(
            f"{where}: no field that is known to hold a question; the row has {', '.join(map(str, row)) or 'no fields'}. "
            'Say which is what with --mapping FILE, a JSON or YAML file as {"question": "…", "answer": "…"}'
        )
    raw = next((row[f] for f in CHOICE_FIELDS if row.get(f)), None)
    choices = _choices(raw) or _lettered(row)
    answer = next((row[f] for f in ANSWER_FIELDS if row.get(f) is not None and f != question), None)
    passage = next((row[f] for f in PASSAGE_FIELDS if isinstance(row.get(f), str) and f != question), None)
    text = row[question]
    if question == "instruction" and isinstance(row.get("input"), str) and row["input"].strip():
        text = f"{text}\n{row['input']}"
    return Question(text, _answer(answer, choices, _labels(raw)), choices, passage)


def _lettered(row: Mapping[str, Any]) -> list[str]:
    """Options in fields of their own: A, B, C, D, or option1, option2 as in WinoGrande."""
    for names in (list("ABCDEFGHIJ"), [f"option{i}" for i in range(1, 11)], [f"sol{i}" for i in range(1, 5)]):
        found = [_text(row[name]) for name in names if row.get(name) is not None]
        if len(found) >= 2:
            return found
    return []


def _choices(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = value.get("text") or value.get("choices") or [v for v in value.values() if isinstance(v, str)]
    if isinstance(value, str):
        value = [part.strip() for part in re.split(r"\n|(?=\([A-J]\) )", value) if part.strip()]
    if not isinstance(value, list | tuple):
        return []
    return [_text(item.get("text") if isinstance(item, dict) else item) for item in value]


def _labels(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [_text(label) for label in value.get("label") or []]
    if isinstance(value, list):
        return [_text(item.get("label")) for item in value if isinstance(item, dict)]
    return []


def _answer(value: Any, choices: list[str], labels: list[str] | None = None) -> str | None:
    """The gold answer's text: an index or a letter is looked up among the options; of several, all, a line each."""
    if value is None:
        return None
    if isinstance(value, dict):  # TriviaQA: {"value": …, "aliases": […]}
        value = value.get("value") or value.get("text") or value.get("aliases") or json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return "\n".join(dict.fromkeys(_text(item) for item in value)) or None
    text = _text(value).strip()
    if choices and not isinstance(value, bool):
        if labels and text in labels and labels.index(text) < len(choices):
            return choices[labels.index(text)]
        if isinstance(value, int) and 0 <= value < len(choices):
            return choices[value]
        letter = LETTERS.find(text.strip("()")) if len(text.strip("()")) == 1 else -1
        if 0 <= letter < len(choices):
            return choices[letter]
    return text or None


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else str(value)


def _sql_table(row: Mapping[str, Any]) -> Question | None:
    """AgentBench DB-Bench: a request, a table, and the rows or hash expected."""
    if not (isinstance(row.get("table"), dict) and "description" in row):
        return None
    info = row["table"].get("table_info") or {}
    columns = ", ".join(_text(c.get("name")) for c in info.get("columns", []) if isinstance(c, dict))
    lines = "\n".join(", ".join(map(_text, line)) for line in (info.get("rows") or [])[:20])
    passage = "\n".join(part for part in (_text(row["table"].get("table_name")), columns, lines) if part)
    label = row.get("label")
    return Question(_text(row["description"]), _answer(label, []) if label else None, [], passage or None)


def _minimal_pair(row: Mapping[str, Any]) -> Question | None:
    """WinoGrande: a sentence with a blank, two fillers, the right one's number from 1."""
    if not {"sentence", "option1", "option2"} <= set(row):
        return None
    choices = [_text(row["option1"]), _text(row["option2"])]
    number = _text(row.get("answer")).strip()
    return Question(_text(row["sentence"]), choices[int(number) - 1] if number in ("1", "2") else None, choices, None)


def _hellaswag(row: Mapping[str, Any]) -> Question | None:
    """HellaSwag: a context, four endings, the right one's index (a string)."""
    if "endings" not in row or not ("ctx" in row or "ctx_a" in row):
        return None
    choices = _choices(row["endings"])
    label = _text(row.get("label")).strip()
    answer = choices[int(label)] if label.isdigit() and int(label) < len(choices) else None
    return Question(_text(row.get("ctx") or f"{row.get('ctx_a', '')} {row.get('ctx_b', '')}"), answer, choices, None)


def _mbpp(row: Mapping[str, Any]) -> Question | None:
    """MBPP: a one-line task, its code, and the assertions that every prompt shows."""
    if not (isinstance(row.get("test_list"), list) and ("text" in row or "prompt" in row)):
        return None
    task = _text(row.get("text") or row.get("prompt"))
    return Question("\n".join([task, *map(_text, row["test_list"])]), _text(row.get("code")) or None, [], None)


def _code_reasoning(row: Mapping[str, Any]) -> Question | None:
    """CRUXEval: a function, an input and its output. The function is what could leak; the literals say little."""
    if not {"code", "input", "output"} <= set(row):
        return None
    return Question(f"{row['code']}\nf({row['input']})", _text(row["output"]), [], None)


def _cloze(row: Mapping[str, Any]) -> Question | None:
    """A context whose end is chosen, or continued."""
    if not isinstance(row.get("context"), str) or any(isinstance(row.get(name), str | dict) for name in QUESTION_FIELDS):
        return None
    choices = _choices(row.get("choices"))
    return Question(row["context"], _answer(row.get("answer"), choices), choices, None)
