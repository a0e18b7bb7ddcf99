"""A process that has imported everything forks stages of a small project, disturbs them, runs them again and says what became of it.

    python tests/faults/injector.py WORKDIR < trials.json > outcomes.jsonl

(with the variables of tests/faults/test_faults.py: one thread for every library). The first outcome is that of the undisturbed runs. This process itself never starts a thread, so that its children, which do,
can be forked from it in a few milliseconds. Every trial has a copy of the project, a victim and a second run. The second run is
compared with the undisturbed one: the content of the tables as it stands in the files, what their records say of it, rows that
are there twice, digests of artifacts.
"""

import gc
import json
import logging
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import disturbances
import torch
import transformers  # noqa: F401
from forked import child, wait
from small_graph import ORDER, STAGES, Project, grow, measured

from midtrain_dagster.clean import characters, contractions
from midtrain_dagster.decontaminate.words import character_tables
from midtrain_dagster.train import loop  # noqa: F401

torch.set_num_threads(1)


class Injector:
    """Runs the undisturbed project once, with a picture of it before every stage, in two situations; then trials."""

    def __init__(self, work: Path):
        self.work = work
        self.project = Project(work / "project")
        for table in (contractions.table, characters.table, character_tables):  # kept for the life of a process
            table()
        self.expected: dict[str, dict[str, Any]] = {"first": {}, "grown": {}}
        self.seconds: dict[str, dict[str, float]] = {"first": {}, "grown": {}}

    def picture(self, situation: str, name: str) -> Path:
        return self.work / "pictures" / situation / name

    def undisturbed(self) -> dict[str, Any]:
        """Both situations from beginning to end."""
        root = self.work / "undisturbed"
        shutil.copytree(self.work / "project", root)
        by_asset = {stage.asset: name for name, stage in STAGES.items()}
        for situation in ("first", "grown"):
            if situation == "grown":
                grow(root)
            for asset in ORDER:
                name = by_asset.get(asset)
                if name:
                    shutil.copytree(root, self.picture(situation, name))
                started = time.monotonic()
                self.learn(self.once(lambda asset=asset: self.imported_by(asset, root)))  # type: ignore[misc]
                if name:
                    self.seconds[situation][name] = time.monotonic() - started
                    print(f"{situation} {name}: {self.seconds[situation][name]:.2f} s", file=sys.stderr, flush=True)
                    stage = STAGES[name]
                    self.expected[situation][name] = self.once(lambda stage=stage: measured(root, stage))  # type: ignore[misc]
        return {"expected": self.expected, "seconds": self.seconds}

    def imported_by(self, asset: str, root: Path) -> list[str]:
        """Run an asset; returns the modules that it has imported."""
        before = set(sys.modules)
        self.project.do(asset, root)
        return sorted(set(sys.modules) - before)

    def learn(self, modules: list[str]) -> None:
        """Import them here, so that no later child has to."""
        for name in modules:
            with suppress(Exception):
                import_module(name)

    def once(self, work: Callable[[], Any]) -> Any:
        """Do it in a child of its own; RuntimeError where it fails."""
        answer = self.work / f"answer-{os.getpid()}.json"
        code = wait(child(work, answer))
        told = json.loads(answer.read_text()) if code >= 0 else {"error": f"ended by signal {-code}"}
        if "error" in told:
            raise RuntimeError(told["error"] + "\n" + told.get("trace", ""))
        return told["answer"]

    def trial(self, trial: dict[str, Any], number: int) -> dict[str, Any]:
        """Disturb one stage, run it again, compare."""
        chance = random.Random(f"{trial['seed']} {number}")
        root = self.work / f"trial-{number}"
        try:
            disturb = getattr(disturbances, trial["fault"])
            return {**trial, "number": number, **disturb(self, root, trial, chance)}
        except Exception as error:
            return {**trial, "number": number, "equal": False, "why": f"{error}"[-1800:]}
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def compared(self, root: Path, trial: dict[str, Any], after: str | None = None) -> dict[str, Any]:
        """Run the stage once more and compare what it has with the undisturbed run."""
        stage = STAGES[trial["stage"]]

        def again() -> dict[str, Any]:
            self.project.do(stage.asset, root)
            return measured(root, stage)

        found, expected = self.once(again), self.expected[after or trial["situation"]][trial["stage"]]
        return {
            "equal": found == expected,
            "why": "" if found == expected else json.dumps({"is": found, "should be": expected}),
        }

    def all(self, trials: list[dict[str, Any]], at_once: int) -> None:
        """Every trial in a process of its own, some at a time; outcomes are printed as they come."""
        gc.collect()
        gc.freeze()  # so that the children's collections do not copy this process's memory
        waiting, running = list(enumerate(trials)), {}
        while waiting or running:
            while waiting and len(running) < at_once:
                number, trial = waiting.pop(0)
                answer = self.work / f"outcome-{number}.json"
                running[child(lambda t=trial, n=number: self.trial(t, n), answer)] = answer  # type: ignore[misc]
            pid, _ = os.wait()
            if pid in running:
                told = json.loads(running.pop(pid).read_text())
                print(json.dumps(told.get("answer", told)), flush=True)


def main() -> None:
    logging.disable(logging.CRITICAL)
    work = Path(sys.argv[1])
    work.mkdir(parents=True, exist_ok=True)
    plan = json.load(sys.stdin)
    injector = Injector(work)
    print(json.dumps({**injector.undisturbed(), "threads": len(os.listdir("/proc/self/task"))}), flush=True)
    injector.all(plan["trials"], plan["at_once"])


if __name__ == "__main__":
    main()
