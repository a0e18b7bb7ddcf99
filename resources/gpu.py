"""Where models train: which device, how many ranks, how many sequences fit, and how a training process is started there."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg

from midtrain_dagster.cores import cores
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import Compute
from midtrain_dagster.train.plan import TrainingPlan

POOL = "gpu"
TRAIN, FIT = "midtrain_dagster.train.run", "midtrain_dagster.train.fit"
HEAD = '$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
PORT = 29477


def cuda_devices() -> int:
    """Accelerators that this process may use, without loading torch: CUDA_VISIBLE_DEVICES, else what nvidia-smi lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() and part.strip() != "-1"])
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


class Gpu:
    """The accelerators that the project names, or this machine's CPU where there are none: the same recipe, the same mathematics.

    Assets that train belong to the Dagster pool `gpu`, so that two trainings never share a device. Precision and attention kernel
    are the training's own choice, by the device it finds itself on.
    """

    def __init__(self, settings: Compute | None = None):
        self.settings = settings or Compute()

    @property
    def device(self) -> str:
        """`cuda` or `cpu`."""
        if self.settings.device != "auto":
            return self.settings.device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def count(self) -> int:
        """Ranks on each machine: as configured, else one a GPU, and one on a CPU."""
        if self.settings.devices is not None:
            return self.settings.devices
        if self.device == "cpu":
            return 1
        import torch

        return max(1, torch.cuda.device_count())

    @property
    def threads(self) -> int:
        """Of one training process: the ranks of a machine share its cores."""
        return self.settings.threads or max(1, cores() // self.count)

    def command(self, plan: Path, module: str = TRAIN, *more: str) -> list[str]:
        """The command line that runs `module` on a plan: plain Python for one rank, `torchrun` for several, under `srun` where
        the machines belong to Slurm, on a Ray cluster by Ray Train.
        """
        run = ["-m", module, str(plan), *more]
        match self.settings.launcher:
            case "ray" if module == TRAIN:
                address = self.settings.launch_options[:1]
                return [sys.executable, "-m", "resources.ray_train", str(plan), str(self.count), *address]
            case "slurm":
                return self._srun(run)
        if self.count == 1:
            return [sys.executable, *run]
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={self.count}", *run]

    def _srun(self, run: list[str]) -> list[str]:
        """One torchrun on each machine; they meet at the first one, which only the allocation can name."""
        nodes = self.settings.nodes
        rendezvous = [f"--nnodes={nodes}", f"--nproc_per_node={self.count}", "--rdzv_backend=c10d", "--rdzv_id=$SLURM_JOB_ID"]
        meeting = f'--rdzv_endpoint="{HEAD}:{PORT}"'
        inner = [sys.executable, "-m", "torch.distributed.run", *rendezvous, meeting, *run]
        devices = [f"--gpus-per-node={self.count}"] if self.device == "cuda" else []
        options = [f"--nodes={nodes}", "--ntasks-per-node=1", *devices, *self.settings.launch_options]
        return ["srun", *options, "bash", "-c", "exec " + " ".join(inner)]

    def environment(self) -> dict[str, str]:
        """Variables of a training process. Threads that wait must not spin: cores are few."""
        visible = {} if self.device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
        return {
            "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(self.threads), "PYTHONUNBUFFERED": "1",
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", **visible,
        }  # fmt: skip

    def launch(self, context: dg.AssetExecutionContext, plan: Path) -> dict[str, Any]:
        """Train in processes of their own, progress streamed into the run's log. Returns the metadata that they reported.

        The child resumes from its checkpoint when the run is retried, and is stopped with the run. What parent and child tell
        each other lies beside the plan meanwhile: on another machine nothing else is shared.
        """
        with tempfile.TemporaryDirectory(prefix=".pipes-", dir=plan.parent) as folder:
            client = dg.PipesSubprocessClient(
                context_injector=dg.PipesFileContextInjector(f"{folder}/context"),
                message_reader=dg.PipesFileMessageReader(f"{folder}/messages"),
            )
            outcome = client.run(
                context=context, command=self.command(plan), env=self.environment(), extras={"plan": str(plan)}
            )
            messages = outcome.get_custom_messages()
        return dict(messages[-1]) if messages else {}

    def fitting(self, plan: TrainingPlan, folder: Path) -> dict[str, Any]:
        """How many sequences fit in one forward pass, measured on the devices themselves (see `midtrain_dagster.train.fit`).

        With the launcher `ray` it is measured on this machine's own devices: name `micro_batch` where the cluster's are others.
        """
        file = folder / "fit.json"
        plan.write(file)
        command = self.command(file, FIT, str(self.settings.head_room))
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **self.environment()})
        file.unlink()
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise MidtrainError(
                f"measuring the batch that fits: {said[-1].removeprefix('midtrain: ') if said else 'it failed'}"
            )
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))
