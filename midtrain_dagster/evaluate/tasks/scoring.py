"""How our task files judge an answer: each function takes a row and the harness's results, and returns metric → score."""

import json
import re
import string
from collections import Counter
from typing import Any

from midtrain_dagster.evaluate.code import ks_of, pass_at_k_of, passes


def _answer(results: list[Any]) -> str:
    return _answers(results)[0]


def _answers(results: list[Any]) -> list[str]:
    """All samples of one question: one, or as many as `repeats` says."""
    return [results[0]] if isinstance(results[0], str) else list(results[0])


def _pass_at(programs: list[str]) -> dict[str, float]:
    """pass@1, and pass@k for the powers of ten up to the number of samples and for that number."""
    correct = sum(passes(program) for program in programs)
    return {f"pass@{k}": pass_at_k_of(len(programs), correct, k) for k in ks_of(len(programs))}


# code


def fixed(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """HumanEvalFix (2308.07124): the repaired function passes the problem's tests."""
    programs = [f"{doc['prompt']}{answer}\n{doc['test']}\n" for answer in _answers(results)]
    return _pass_at([_checked(program, doc["entry_point"]) for program in programs])


def _checked(program: str, entry_point: str) -> str:
    called = re.search(r"^check\(", program, re.MULTILINE)
    return program if called else f"{program}\ncheck({entry_point})\n"


def output_predicted(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """CRUXEval-O (2401.03065): the predicted literal equals what the function returns, which running it decides."""
    return {"exact_match": float(passes(f"{doc['code']}\nassert f({doc['input']}) == ({_answer(results).strip()})"))}


def input_predicted(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """CRUXEval-I (2401.03065): any input counts that gives the output."""
    answers = [answer.strip() for answer in _answers(results)]
    return _pass_at([f"{doc['code']}\nassert f({answer}) == ({doc['output']})" for answer in answers])


# agents


def exact_call(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """The call is JSON with the right name, and name and arguments equal the right one's (in the manner of 2305.15334)."""
    right = json.loads(doc["answer"])
    call = first_json(_answer(results))
    named = isinstance(call, dict) and call.get("name") == right["name"]
    return {"exact_call": float(named and call == right), "right_name": float(named)}


def first_json(text: str) -> Any:
    """The first JSON object in a text; None where there is none."""
    for match in re.finditer(r"\{", text):
        try:
            return json.JSONDecoder().raw_decode(text[match.start() :])[0]
        except ValueError:
            continue
    return None


# reading


def best_f1(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """Word F1 with the closest reference, as SCROLLS scores NarrativeQA (2201.03533, 1606.05250)."""
    answers = doc["answers"]
    references = [answer["text"] if isinstance(answer, dict) else answer for answer in answers]
    return {"f1": max((_f1(_words(_answer(results)), _words(reference)) for reference in references), default=0.0)}


def _words(text: str) -> list[str]:
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return [word for word in bare.split() if word not in ("a", "an", "the")]


def _f1(given: list[str], wanted: list[str]) -> float:
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted)) if common else 0.0


def found(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """The needle's value stands in the answer (RULER, 2404.06654)."""
    return {"exact_match": float(str(doc["answer"]).lower() in _answer(results).lower())}


def all_said(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """The share of the wanted values that stand in the answer (RULER's string_match_all, 2404.06654)."""
    answer = _answer(results).lower()
    return {"string_match_all": sum(str(value).lower() in answer for value in doc["outputs"]) / len(doc["outputs"])}


def reasoned(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """reasoning-gym's own scorer (2505.24760) on the answer's first line: 0 to 1."""
    import reasoning_gym

    dataset = reasoning_gym.create_dataset(doc["task"], seed=doc["seed"], size=doc["size"])
    answer = _answer(results).strip().split("\n")[0].strip()
    return {"score": float(dataset.score_answer(answer=answer, entry=dataset[doc["index"]]))}


def completed(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """The generated body equals the real one, line by line without trailing space, over the real one's lines."""
    wanted = [line.rstrip() for line in doc["completion"].splitlines()]
    given = [line.rstrip() for line in _answer(results).splitlines()]
    return {"exact_match": float(given[: len(wanted)] == wanted)}
