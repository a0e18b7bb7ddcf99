"""Episodes: what a model reads next depends on what it said. All live episodes take a turn together, in batches.

lm-evaluation-harness knows one answer a question. Here its model interface is asked turn by turn, so that every answer is
kept and resumed as any other; results come out under its own keys.
"""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

from midtrain_dagster.errors import MidtrainError


class Turn(NamedTuple):
    """What the model reads, and where its answer ends."""

    prompt: str
    until: tuple[str, ...]
    max_gen_toks: int


class Environment(Protocol):
    """One episode on one row."""

    def turn(self) -> Turn | None:
        """What is read next; None when the episode is over."""

    def act(self, answer: str) -> None:
        """Take the model's answer to the last turn."""

    def scores(self) -> dict[str, float]:
        """metric → score, when the episode is over."""

    def close(self) -> None:
        """Give back what the episode holds: called once, always."""


class Kind(NamedTuple):
    """A benchmark of episodes."""

    open: Callable[[Mapping[str, Any]], Environment]  # raises MidtrainError for a row that it cannot judge
    gold: Callable[[Mapping[str, Any]], str]  # the right first answer, whose bits are measured
    version: str = "1"


class Played:
    """Rows and their environment, with what the rest of the stage asks of a harness task."""

    OUTPUT_TYPE = "played"

    def __init__(self, name: str, kind: Kind, rows: Sequence[Mapping[str, Any]]):
        self.name, self.kind, self.task_docs, self.VERSION = name, kind, list(rows), kind.version
        self.config = SimpleNamespace(target_delimiter="", num_fewshot=0)

    def doc_to_target(self, doc: Mapping[str, Any]) -> str:
        """The right first answer."""
        return self.kind.gold(doc)


def play(task: Played, lm: Any, limit: int | None = None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Results under lm-evaluation-harness's keys, and a logged sample for each of the first `limit` rows.

    A sample's `resps` hold its answers in order. Raises MidtrainError for a row that the environment cannot judge.
    """
    docs = task.task_docs[:limit]
    episodes: list[Environment] = []
    try:
        for number, doc in enumerate(docs):
            episodes.append(_open(task, number, doc))
        prompts, answers = _rounds(episodes, docs, lm)
        scores = [episode.scores() for episode in episodes]
    finally:
        for episode in episodes:
            episode.close()
    logged = [
        {
            "doc_id": number,
            "doc": dict(doc),
            "arguments": [(prompts[number],)],
            "resps": [answers[number]],
            "filter": "none",
            "metrics": list(scores[number]),
            **scores[number],
        }
        for number, doc in enumerate(docs)
    ]
    return _results(task, scores), logged


def opening(task: Played, limit: int | None) -> list[dict[str, Any]]:
    """The first turn of each episode, without playing it."""
    logged = []
    for number, doc in enumerate(task.task_docs[:limit]):
        episode = _open(task, number, doc)
        first = episode.turn()
        episode.close()
        assert first is not None, "an episode has at least one turn"
        sample = {"doc_id": number, "doc": dict(doc), "arguments": [(first.prompt,)], "resps": [], "filter": "none"}
        logged.append({**sample, "metrics": []})
    return logged


def _open(task: Played, number: int, doc: Mapping[str, Any]) -> Environment:
    try:
        return task.kind.open(doc)
    except (KeyError, TypeError, ValueError) as error:
        raise MidtrainError(f"{task.name}, row {number}: it is not in the set's format: {error!r}") from error


def _rounds(episodes: Sequence[Environment], docs: Sequence[Mapping[str, Any]], lm: Any) -> tuple[list[str], list[list[str]]]:
    """First prompt and all answers of each episode."""
    from lm_eval.api.instance import Instance

    prompts = [""] * len(episodes)
    answers: list[list[str]] = [[] for _ in episodes]
    while True:
        turns = {number: turn for number, episode in enumerate(episodes) if (turn := episode.turn()) is not None}
        if not turns:
            return prompts, answers
        requests = []
        for number, turn in turns.items():
            prompts[number] = prompts[number] or turn.prompt
            how = {"until": list(turn.until), "max_gen_toks": turn.max_gen_toks, "do_sample": False}
            requests.append(Instance("generate_until", dict(docs[number]), (turn.prompt, how), 0))
        for number, answer in zip(turns, lm.generate_until(requests, disable_tqdm=True), strict=True):
            answers[number].append(answer)
            episodes[number].act(answer)


def _results(task: Played, scores: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Mean and standard error of each metric, as the harness writes them."""
    measured: dict[str, Any] = {"alias": task.name}
    for metric in scores[0] if scores else ():
        values = [some[metric] for some in scores]
        mean = sum(values) / len(values)
        spread = sum((value - mean) ** 2 for value in values)
        measured[f"{metric},none"] = mean
        measured[f"{metric}_stderr,none"] = sqrt(spread / (len(values) - 1) / len(values)) if len(values) > 1 else "N/A"
    return {
        "results": {task.name: measured},
        "configs": {task.name: {"task": task.name, "output_type": "played", "num_fewshot": 0}},
        "versions": {task.name: task.VERSION},
        "n-shot": {task.name: 0},
        "higher_is_better": {task.name: dict.fromkeys(scores[0] if scores else (), True)},
        "n-samples": {task.name: {"original": len(task.task_docs), "effective": len(scores)}},
    }
