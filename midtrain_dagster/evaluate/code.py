"""Scores of generated programs: run in the sandbox, with unbiased pass@k."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import comb
from secrets import token_hex
from types import ModuleType

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.sandbox import Sandbox

TIMEOUT = 10.0  # seconds a program; HumanEval's own harness takes 3, on faster machines than a shared one


def passes(program: str, *, timeout: float = TIMEOUT, box: Sandbox | None = None) -> bool:
    """Whether a program runs to its very end without an error.

    A program that leaves early with exit code 0 does not pass: the last line, which we add, has to have been printed.
    """
    mark = token_hex(8)
    outcome = (box or Sandbox.find()).run(f"{program}\n\nprint({mark!r})\n", timeout=timeout)
    return outcome.status == "ok" and outcome.stdout.rstrip().endswith(mark)


def pass_at_k_of(samples: int, correct: int, k: int) -> float:
    """1 − C(n−c, k)/C(n, k): the unbiased estimate of the chance that one of k samples is right (2107.03374, eq. 1).

    Raises ValueError for k over n: there is no estimate then.
    """
    if k > samples:
        raise ValueError(f"pass@{k} needs at least {k} samples of a problem, not {samples}")
    return 1.0 - comb(samples - correct, k) / comb(samples, k)


def ks_of(samples: int) -> list[int]:
    """The k that pass@k is reported for: powers of ten up to the number of samples, and that number."""
    return sorted({1, samples, *(k for k in (10, 100) if k <= samples)})


def pass_at_k(
    references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int] | int = (1,)
) -> dict[str, float]:
    """As lm-evaluation-harness calls it: test code and candidate programs of each problem → {"pass@k": mean}."""
    counts = []
    box = Sandbox.find()
    for test, candidates in zip(references, predictions, strict=True):
        counts.append((len(candidates), sum(passes(f"{candidate}\n{test}", box=box) for candidate in candidates)))
    ks = [k] if isinstance(k, int) else list(k)
    return {f"pass@{k}": sum(pass_at_k_of(n, c, k) for n, c in counts) / len(counts) for k in ks}


@contextmanager
def code_eval_in_sandbox() -> Iterator[None]:
    """While it holds, `evaluate.load("code_eval")` is this module.

    The harness's code benchmarks load that metric from the hub when they are imported, and it runs programs unguarded.
    Their prompts, filters and metrics stay their own; what runs the programs is the sandbox.
    """
    before = sys.modules.get("evaluate")
    stand_in = ModuleType("evaluate")
    stand_in.load = lambda name, *_, **__: _CodeEval(name)  # type: ignore[attr-defined]
    sys.modules["evaluate"] = stand_in
    try:
        yield
    finally:
        if before is None:
            del sys.modules["evaluate"]
        else:
            sys.modules["evaluate"] = before


class _CodeEval:
    """The part of `evaluate`'s code_eval that the harness calls."""

    def __init__(self, name: str):
        if name != "code_eval":
            raise MidtrainError(f"a benchmark asks for the metric {name!r} of the hub, which is not available here")

    def compute(
        self, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int] | int = (1,)
    ) -> tuple[dict[str, float], dict[str, str]]:
        return pass_at_k(references, predictions, k), {}
