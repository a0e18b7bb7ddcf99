"""Where models train: which device, in which precision, and how a training process is started there."""

import os
import sys
from pathlib import Path
from typing import Any

import dagster as dg

POOL = "gpu"


class Gpu:
    """The accelerator of this machine, or its CPU where there is none: the same recipe, the same mathematics.

    Assets that train belong to the Dagster pool `gpu`, so that two trainings never share a device.
    """

    def __init__(self, device: str = "auto", threads: int | None = None):
        self.wanted, self._threads = device, threads

    @property
    def device(self) -> str:
        """`cuda` or `cpu`."""
        if self.wanted != "auto":
            return self.wanted
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def count(self) -> int:
        """Devices, and so ranks of a training: one on a CPU."""
        if self.device == "cpu":
            return 1
        import torch

        return max(1, torch.cuda.device_count())

    @property
    def threads(self) -> int:
        """Of one training process."""
        return self._threads or len(os.sched_getaffinity(0))

    def command(self, plan: Path) -> list[str]:
        """The command line of a training: `torchrun` over all devices, plain Python on one."""
        module = "midtrain_dagster.train.run"
        if self.count == 1:
            return [sys.executable, "-m", module, str(plan)]
        return [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={self.count}",
            "-m",
            module,
            str(plan),
        ]

    def environment(self) -> dict[str, str]:
        """Variables of a training process. Threads that wait must not spin: cores are few."""
        visible = {} if self.device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
        return {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(self.threads), "PYTHONUNBUFFERED": "1", **visible}

    def launch(self, context: dg.AssetExecutionContext, plan: Path) -> dict[str, Any]:
        """Train in a process of its own, its progress streamed into the run's log. Returns the metadata it reported.

        The child resumes from its checkpoint when the run is retried, and is stopped with the run.
        """
        outcome = dg.PipesSubprocessClient().run(
            context=context, command=self.command(plan), env=self.environment(), extras={"plan": str(plan)}
        )
        return dict(outcome.get_custom_messages()[-1]) if outcome.get_custom_messages() else {}
