"""Our evaluation beside lm-evaluation-harness called directly: the same rows, every sample's numbers, and the time of each.

python benchmarks/evaluation.py --model DIR --data DIR --tasks winogrande,mmlu_anatomy,nq_open --limit 40 --precision float32

The two take turns in going first, over `--rounds`. A line a benchmark says whether the aggregates are the same to the last digit, how
many answers (greedy texts, chosen options) differ, and how far the log-likelihoods of single requests are apart: packing changes
the order of floating-point sums, so they agree to about 1e-4 nats in float32, not bit for bit, and a score can differ where two options tie within that.
`docs/evaluation.md` has what was measured.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from midtrain_dagster.evaluate.harness import build
from midtrain_dagster.evaluate.language_model import LanguageModel
from midtrain_dagster.evaluate.names import named
from midtrain_dagster.evaluate.precision import precision_of
from midtrain_dagster.evaluate.responses import Responses

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OURS, THEIRS = "midtrain", "lm-evaluation-harness"


def measure(lm: Any, name: str, data: Path, limit: int, num_fewshot: int | None) -> tuple[dict[str, Any], float]:
    """(the harness's results, seconds) of one benchmark on one backend; loading the model is not counted."""
    ((name, benchmark),) = named(name).items()
    built = build(name, benchmark, data, num_fewshot, hub=False)
    if isinstance(lm, LanguageModel):
        lm.responses = Responses(None)  # a second round asks again
    started = time.perf_counter()
    done = simple_evaluate(
        model=lm,
        tasks=[built.group] if built.group is not None else list(built.tasks.values()),
        limit=limit,
        bootstrap_iters=100,
        task_manager=TaskManager(include_defaults=False),
        confirm_run_unsafe_code=True,
    )
    return done, time.perf_counter() - started


def scores_of(done: dict[str, Any], name: str) -> dict[str, float]:
    scores = (done.get("groups") or {}).get(name) or done["results"].get(name) or next(iter(done["results"].values()))
    return {key: float(value) for key, value in scores.items() if "," in key and isinstance(value, float | int)}


def by_sample(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Sample by sample: how far apart log-likelihoods are, and how many answers and metrics differ."""
    farthest, answers, metrics, count = 0.0, 0, 0, 0
    for task, samples in ours["samples"].items():
        others = {(s["doc_id"], s["filter"]): s for s in theirs["samples"][task]}
        for sample in samples:
            other = others[sample["doc_id"], sample["filter"]]
            count += 1
            metrics += any(sample[m] != other[m] for m in sample["metrics"])
            for given, wanted in zip(sample["resps"], other["resps"], strict=True):
                if isinstance(given[0], str):
                    answers += given != wanted
                else:
                    farthest = max(farthest, abs(given[0][0] - wanted[0][0]))
                    answers += given[0][1] != wanted[0][1]
    return {"samples": count, "nats_apart": farthest, "answers_differ": answers, "scores_differ": metrics}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", default="arc_easy,winogrande")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--num-fewshot", type=int, default=None)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    precision = precision_of(arguments.precision)
    backends = {
        OURS: LanguageModel(arguments.model, precision=precision, batch_size=arguments.batch_size),
        THEIRS: HFLM(pretrained=arguments.model, dtype=precision, batch_size=arguments.batch_size, device=DEVICE),
    }
    for name in arguments.tasks.split(","):
        seconds: dict[str, list[float]] = {backend: [] for backend in backends}
        done: dict[str, dict[str, Any]] = {}
        for turn in range(arguments.rounds):
            for backend in [*backends][:: 1 if turn % 2 == 0 else -1]:
                told, took = measure(backends[backend], name, arguments.data, arguments.limit, arguments.num_fewshot)
                done[backend] = told
                seconds[backend].append(round(took, 2))
        scores = {backend: scores_of(told, name) for backend, told in done.items()}
        row = {
            "benchmark": name,
            "limit": arguments.limit,
            "precision": precision,
            "scores": scores[OURS],
            "same": scores[OURS] == scores[THEIRS],
            **by_sample(done[OURS], done[THEIRS]),
            "seconds": seconds,
            "speedup": round(sum(seconds[THEIRS]) / sum(seconds[OURS]), 2),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
