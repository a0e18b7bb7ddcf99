"""SCROLLS (2201.03533) on rows in its own format: `id`, `pid`, `input`, `output`; those of one id have become one, with all `outputs` (`shapes`).

Prompts are those of lm-evaluation-harness's scrolls tasks, which themselves cannot run here: they load data and a metric script from the hub when they are made, and import what transformers 5 no longer has. Metrics follow the paper: best word F1, exact choice, and the geometric mean of ROUGE-1, -2 and -L (here of each document).
"""

import re
from typing import Any

from midtrain_dagster.evaluate.tasks.scoring import best_f1

CONCLUSIONS = ["Not mentioned", "Entailment", "Contradiction"]


def _dataset(rows: list[dict[str, Any]]) -> Any:
    import datasets

    return datasets.Dataset.from_list(rows)


def _asked(row: dict[str, Any]) -> dict[str, Any]:
    """The question stands before the text, two newlines apart."""
    question, _, text = row["input"].partition("\n\n")
    return {**row, "question": question, "text": text}


def questions(dataset: Any) -> Any:
    """Qasper, NarrativeQA, QMSum."""
    return _dataset([_asked(row) for row in dataset])


def contracts(dataset: Any) -> Any:
    """ContractNLI."""
    rows = [_asked(row) for row in dataset]
    return _dataset([{**r, "choices": CONCLUSIONS, "gold": CONCLUSIONS.index(r["outputs"][0])} for r in rows])


def quality(dataset: Any) -> Any:
    """QuALITY: the four options stand between question and text."""
    return _dataset([_options(_asked(row)) for row in dataset])


def _options(row: dict[str, Any]) -> dict[str, Any]:
    text = row["text"]
    split = text.find("\n\n", text.find("(D)"))
    choices = [" ".join(choice.split()) for choice in re.split(r" *\([A-D]\) *", text[:split])[1:]]
    gold = choices.index(" ".join(row["outputs"][0].split()))
    return {**row, "text": text[split:].strip(), "choices": choices, "gold": gold}


def f1(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """Word F1 with the closest reference."""
    return best_f1({"answers": doc["outputs"]}, results)


def rouge(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """ROUGE F with the best reference of each kind, and their geometric mean."""
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ("rouge1", "rouge2", "rougeL")
    given = results[0] if isinstance(results[0], str) else results[0][0]
    scores = [RougeScorer(list(kinds)).score(reference, given) for reference in doc["outputs"]]
    best = {kind: max(float(score[kind].fmeasure) for score in scores) for kind in kinds}
    return {**best, "rouge": (best["rouge1"] * best["rouge2"] * best["rougeL"]) ** (1 / 3)}
