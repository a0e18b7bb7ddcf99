"""Every asset is measured: what it used stands in its metadata and in the ledger, and a budget stops it in order."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import wraps
from typing import Any

import dagster as dg

from midtrain_dagster.ledger import BudgetReached, Ledger, keep, most
from midtrain_dagster.metering import Meter, Usage, family
from midtrain_dagster.project.operations import Budget
from resources.gpu import POOL, cuda_devices
from resources.openlineage import OpenLineage

BUDGET_TAGS = {"hours": "midtrain/max_hours", "money": "midtrain/max_money", "gpu_hours": "midtrain/max_gpu_hours"}
TRAININGS = ("midtrain_dagster.train.run", "resources.ray_train")  # as they stand in a command line
METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


def measured(function: Callable[..., dg.MaterializeResult]) -> Callable[..., dg.MaterializeResult]:
    """Under `@dg.asset(…)`: measure it, keep the account, tell OpenLineage, stop it where the run's budget ends."""

    @wraps(function)
    def asset(context: dg.AssetExecutionContext, **needs: Any) -> dg.MaterializeResult:
        if not in_a_run(context):
            return function(context, **needs)
        ledger: Ledger = needs["lake"].ledger
        told = OpenLineage.of(context, needs["lake"])
        account = Account(context, ledger, needs)
        account.admit()
        told.start()
        meter = Meter(account.gpus, account.look)
        token = METER.set(meter)
        try:
            with meter:
                result = function(context, **needs)
        except Exception as error:
            stopped = meter.problem or error
            reached = isinstance(stopped, BudgetReached)
            account.close(meter.so_far(), "stopped" if reached else "failed", {})
            told.fail(str(stopped))
            if reached:
                raise account.end(stopped) from None
            raise
        finally:
            METER.reset(token)
        line = account.close(meter.used, "up to date" if (result.metadata or {}).get("up to date") else "made", result.metadata)
        told.complete(result)
        costs = {f"cost/{name}": line[name] for name in COSTS if line[name] is not None}
        return result._replace(metadata={**(result.metadata or {}), **costs})

    asset.measured = True  # type: ignore[attr-defined]
    return asset


def in_a_run(context: dg.AssetExecutionContext) -> bool:
    """Whether Dagster runs the asset. One that is called as a function, in a test or a notebook, has no run to account to."""
    try:
        return context.run is not None
    except dg.DagsterError:  # the property is not set
        return False


COSTS = (
    "wall_seconds",
    "cpu_seconds",
    "gpu_seconds",
    "peak_memory_bytes",
    "bytes_read",
    "bytes_written",
    "teacher_requests",
    "teacher_prompt_tokens",
    "teacher_completion_tokens",
    "teacher_money",
    "money",
)


class Account:
    """What one asset of one run uses, and what the run may."""

    def __init__(self, context: dg.AssetExecutionContext, ledger: Ledger, needs: Mapping[str, Any]):
        self.context, self.ledger = context, ledger
        tags = context.run.tags
        self.root = context.run.root_run_id or context.run_id
        self.budget = most(ledger.budget, Budget(**{name: tags[tag] for name, tag in BUDGET_TAGS.items() if tag in tags}))
        limited = any(limit is not None for limit in self.budget.model_dump().values())
        self.before = ledger.used(self.root) if limited else {}
        self.began = began(context, self.root) if limited else time.time()
        self.teacher = needs.get("teacher")
        self.spent = self.teacher.account() if self.teacher is not None else {}
        gpu = needs.get("gpu")
        held = context.op_execution_context.op_def.pool == POOL and (gpu is None or gpu.settings.device != "cpu")
        self.gpus = cuda_devices() if held else 0

    def admit(self) -> None:
        """Refuse to begin where the budget is used up."""
        try:
            self._keep({})
        except BudgetReached as error:
            raise self.end(error) from None

    def look(self, used: Usage) -> None:
        """While it works: where the budget ends, a training is asked to save its checkpoint and stop."""
        try:
            self._keep({"money": self.ledger.machine(used) + self._teacher()["cost"], "gpu_hours": used.gpu_seconds / 3600})
        except BudgetReached:
            stop_training()
            raise

    def _keep(self, now: Mapping[str, float]) -> None:
        amounts = {name: self.before.get(name, 0.0) + now.get(name, 0.0) for name in ("money", "gpu_hours")}
        keep(self.budget, {"hours": (time.time() - self.began) / 3600, **amounts})

    def _teacher(self) -> dict[str, float]:
        now = self.teacher.account() if self.teacher is not None else {}
        return {name: now.get(name, 0) - self.spent.get(name, 0) for name in ACCOUNT}

    def end(self, error: Exception) -> dg.Failure:
        """The failure that ends the run: not tried again by itself, since it would end the same."""
        with suppress(Exception):
            self.context.instance.add_run_tags(self.context.run_id, {"dagster/max_retries": "0"})
        self.context.log.warning(str(error))
        return dg.Failure(description=str(error), allow_retries=False)

    def close(self, used: Usage, outcome: str, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
        """Write the line of this asset."""
        asked, key = self._teacher(), self.context.asset_key
        spec = self.context.assets_def.get_asset_spec(key)
        return self.ledger.add(
            {
                "run": self.context.run_id,
                "root_run": self.root,
                "recipe": spec.tags.get("midtrain/recipe"),
                "stage": spec.group_name,
                "asset": key.to_user_string(),
                "outcome": outcome,
                "worked_on": int((metadata or {}).get("worked on") or 0),
                **{name: round(v, 4) if isinstance(v, float) else v for name, v in used._asdict().items()},
                **{f"teacher_{name}": int(asked[name]) for name in ACCOUNT[:3]},
                "teacher_money": asked["cost"],
                "money": self.ledger.machine(used) + asked["cost"],
            }
        )


ACCOUNT = ("requests", "prompt_tokens", "completion_tokens", "cost")


def began(context: dg.AssetExecutionContext, root: str) -> float:
    """When a run, or the first of its tries, started: seconds since 1970."""
    record = context.instance.get_run_record_by_id(root) or context.instance.get_run_record_by_id(context.run_id)
    if record is None:
        return time.time()
    return float(record.start_time or record.create_timestamp.timestamp())


def stop_training() -> None:
    """Ask trainings below this process to save their checkpoint and end."""
    for process in family()[1:]:
        with suppress(Exception):
            if process.ppid() == os.getpid() and any(name in part for name in TRAININGS for part in process.cmdline()):
                process.send_signal(signal.SIGTERM)


def check() -> None:
    """Raise where the run's budget has ended; stages call it through their progress."""
    meter = METER.get()
    if meter is not None:
        meter.check()
