"""Final answers of worked solutions: finding and comparing them."""

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

MARKS = (
    re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}"),
    re.compile(r"####\s*(.+)"),
    re.compile(r"(?:final answer|the answer)\s*(?:is|:)\s*:?\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE),
)
NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?")


def final_answer(text: str) -> str:
    """What a solution ends in: the last marked answer (`\\boxed{}`, `####`, `The answer is`), else its last number, else its
    last line."""
    for mark in MARKS:
        found = mark.findall(text)
        if found:
            return str(found[-1]).strip().rstrip(".")
    numbers = NUMBER.findall(text)
    if numbers:
        return str(numbers[-1])
    lines = text.strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else ""


def same_answer(left: str, right: str) -> bool:
    """Whether two final answers mean the same: equal numbers, or equal words."""
    a, b = _number(left), _number(right)
    if a is not None and b is not None:
        return a == b
    return bool(_plain(left)) and _plain(left) == _plain(right)


def majority(answers: Sequence[str]) -> tuple[str, float]:
    """The most frequent answer and its share (self-consistency, arXiv:2203.11171); ("", 0) for none."""
    if not answers:
        return "", 0.0
    groups: list[str] = []
    for answer in answers:
        groups.append(next((other for other in groups if same_answer(answer, other)), answer))
    best, count = max(Counter(groups).items(), key=lambda item: (item[1], item[0]))
    return best, count / len(answers)


def _number(text: str) -> Fraction | None:
    """The value of an answer that is one number, with a unit or a currency or without."""
    found = NUMBER.findall(text)
    if len(found) != 1:
        return None
    try:
        return Fraction(found[0].replace(",", "").replace("$", ""))
    except (ValueError, ZeroDivisionError):
        return None


def _plain(text: str) -> str:
    return re.sub(r"[^\w]+", " ", text.lower()).strip()
