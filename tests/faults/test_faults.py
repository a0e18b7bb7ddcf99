"""Kill it anywhere, fill the disk, damage a file, run it twice at once: a second run ends as an undisturbed one did.

Nothing is lost, nothing is there twice, and what people have to see to is said in words. See injector.py for how.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from small_graph import STAGES

SEED = 20261127
HERE = Path(__file__).parent
ONCE = ("questions", "rater", "base")  # nothing to do for these when documents change
QUICK = ("collect", "synthesize", "questions", "rater", "rate", "base", "pack", "plan", "lineage")
BY_DOCUMENT = ("collect", "clean", "deduplicate", "decontaminate", "rate")
SINGLE = dict.fromkeys(("POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
VARIABLES = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "Agg", "CUDA_VISIBLE_DEVICES": ""}


def plan() -> list[dict[str, Any]]:
    """Every stage in both situations: the first run of all, and one after documents came, changed and went."""

    def trial(fault: str, stage: str, number: int) -> dict[str, Any]:
        situation = "first" if stage in ONCE or number % 2 else "grown"
        return {"fault": fault, "stage": stage, "situation": situation, "seed": SEED + number}

    trials = []
    for stage in STAGES:
        at_times, at_calls = (8, 8) if stage in QUICK else (4, 3)
        trials += [trial("killed_at_a_time", stage, n) for n in range(at_times)]
        trials += [trial("killed_at_a_call", stage, n) for n in range(at_calls)]
        trials += [trial(fault, stage, 0) for fault in ("full_disk", "two_at_once")]
    for stage in BY_DOCUMENT:
        trials += [trial("killed_and_moved_on", stage, 2 * n + 1) for n in range(3)]
    for stage in ("collect", "clean", "deduplicate", "decontaminate", "rate", "select"):
        trials += [trial("damaged_file", stage, n) for n in range(2)] + [trial("clock_jumped", stage, 0)]
    trials += [trial("failing_storage", stage, 0) for stage in (*BY_DOCUMENT, "rater", "pack", "train")]
    trials += [trial("read_only", stage, 0) for stage in ("collect", "clean", "synthesize", "select", "mix", "train")]
    return trials + [trial("training_killed", "train", n) for n in range(4)]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    work = tmp_path_factory.mktemp("faults") / "work"
    given = json.dumps({"trials": plan(), "at_once": len(os.sched_getaffinity(0))})
    done = subprocess.run(
        [sys.executable, HERE / "injector.py", work],
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, **SINGLE, **VARIABLES, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), *sys.path])},
        timeout=580,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()][1:]
    counts = Counter(outcome.get("fault", "broken trial") for outcome in found)
    equal = Counter(outcome.get("fault", "broken trial") for outcome in found if outcome.get("equal"))
    lines = [f"{fault}: {count} trials, {equal[fault]} ended as undisturbed" for fault, count in sorted(counts.items())]
    kills = sum(bool(outcome.get("killed")) for outcome in found)
    print("\n" + "\n".join([*lines, f"killed by SIGKILL: {kills}"]))
    return found


def test_every_second_run_ends_as_an_undisturbed_one(outcomes: list[dict[str, Any]]) -> None:
    others = [json.dumps(outcome) for outcome in outcomes if not outcome.get("equal")]
    assert not others, "\n".join(others)
    assert len(outcomes) == len(plan())


def test_two_hundred_kills_hit(outcomes: list[dict[str, Any]]) -> None:
    kills = [outcome for outcome in outcomes if outcome.get("killed")]
    assert len(kills) >= 200
    assert {outcome["stage"] for outcome in kills} == set(STAGES)


def test_what_went_wrong_is_said_in_words(outcomes: list[dict[str, Any]]) -> None:
    unworded = [json.dumps(outcome) for outcome in outcomes if outcome.get("in words") is False]
    assert not unworded, "\n".join(unworded)
    told = [outcome["error"] for outcome in outcomes if outcome["fault"] in ("full_disk", "read_only") and outcome["failed"]]
    assert len(told) >= 8
    assert all("run again" in error for error in told)


def test_damage_is_found_where_it_was_done(outcomes: list[dict[str, Any]]) -> None:
    damaged = [outcome for outcome in outcomes if outcome["fault"] == "damaged_file"]
    assert len(damaged) >= 12
    # Bytes that no reader looks at may change without harm; that the rows are the same is the first test's to see.
    assert all(outcome["found"] for outcome in damaged if not outcome["damage"].startswith("changed"))
