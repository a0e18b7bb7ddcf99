"""Our evaluation beside lm-evaluation-harness called directly: the same rows, the same numbers, and the time of each.

python benchmarks/evaluation.py --model DIR --data DIR --tasks arc_easy,winogrande --limit 40 --precision float32
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

from midtrain_dagster.evaluate.catalog import CATALOG
from midtrain_dagster.evaluate.harness import build
from midtrain_dagster.evaluate.language_model import LanguageModel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def measure(lm: Any, name: str, data: Path, limit: int) -> tuple[dict[str, float], float]:
    """(metric → score, seconds) of one benchmark on one backend; loading the model is not counted."""
    built = build(name, CATALOG[name], data, hub=False)
    started = time.perf_counter()
    done = simple_evaluate(
        model=lm,
        tasks=[built.group] if built.group is not None else list(built.tasks.values()),
        limit=limit,
        bootstrap_iters=100,
        task_manager=TaskManager(include_defaults=False),
        confirm_run_unsafe_code=True,
    )
    seconds = time.perf_counter() - started
    scores = (done.get("groups") or {}).get(name) or done["results"].get(name) or {}
    return {key: float(value) for key, value in scores.items() if "," in key and isinstance(value, float | int)}, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", default="arc_easy,winogrande")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    backends = {
        "midtrain": LanguageModel(arguments.model, precision=arguments.precision, batch_size=arguments.batch_size),
        "lm-evaluation-harness": HFLM(
            pretrained=arguments.model, dtype=arguments.precision, batch_size=arguments.batch_size, device=DEVICE
        ),
    }
    for name in arguments.tasks.split(","):
        row: dict[str, Any] = {"benchmark": name, "limit": arguments.limit, "precision": arguments.precision}
        for backend, lm in backends.items():
            scores, seconds = measure(lm, name, arguments.data, arguments.limit)
            row[backend] = {"seconds": round(seconds, 2), **scores}
        ours, theirs = row["midtrain"], row["lm-evaluation-harness"]
        row["same"] = {k: v for k, v in ours.items() if k != "seconds"} == {k: v for k, v in theirs.items() if k != "seconds"}
        row["speedup"] = round(theirs["seconds"] / ours["seconds"], 2)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
