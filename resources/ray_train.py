"""`python -m resources.ray_train PLAN.json RANKS [ADDRESS]`: a training on a Ray cluster, by Ray Train.

Ray forms the process group; each worker then runs what `midtrain_dagster.train.run` runs. The plan's model, sequences and OUT lie
on storage that all of them see. Started by Dagster through Pipes, the driver reports, and the workers know nothing of Dagster.

SIGINT or SIGTERM to the driver saves a checkpoint of the last whole step and exits with 130, as it does without Ray: the workers
look for a file in OUT. The same command then goes on from there, also after a machine died.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.train.lifeline import Interrupted
from midtrain_dagster.train.plan import TrainingPlan

STOP, STOPPED = "stop", "stopped"  # files: what the driver asks for, and what a worker answers


def worker(settings: dict[str, Any]) -> None:
    """One rank. Ray has set RANK, LOCAL_RANK and WORLD_SIZE and joined the group."""
    from midtrain_dagster.train.run import run, tell

    plan = TrainingPlan.from_values(settings)
    try:
        run(plan, tell, (kept(plan) / STOP).exists)
    except Interrupted as error:  # Ray would call it a failure
        (kept(plan) / STOPPED).write_text(str(error))


def train(plan: TrainingPlan, ranks: int, address: str | None) -> dict[str, Any]:
    """Train on `ranks` workers of a cluster (None: one that is started here) and return the summary that the first one wrote.

    Raises Interrupted after a signal, MidtrainError when a guard found the run broken or a worker was lost.
    """
    try:
        import ray
        from ray.train.torch import TorchTrainer
    except ImportError:
        raise MidtrainError("compute.launcher: Ray is not installed: pip install 'midtrain-dagster[ray]'") from None
    shared = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_WAIT_POLICY": "passive"}
    shutil.rmtree(kept(plan), ignore_errors=True)
    kept(plan).mkdir(parents=True)
    ray.init(address=address, include_dashboard=None if address else False, runtime_env={"env_vars": shared})
    try:
        trainer = TorchTrainer(worker, train_loop_config=json.loads(plan.to_json()), **spread(plan, ranks))
        with stopping(kept(plan) / STOP):
            fit(trainer)
        if (kept(plan) / STOPPED).exists():
            raise Interrupted((kept(plan) / STOPPED).read_text())
    finally:
        ray.shutdown()
        shutil.rmtree(kept(plan), ignore_errors=True)
    return dict(json.loads((Path(plan.out) / "training.json").read_text()))


def kept(plan: TrainingPlan) -> Path:
    """What Ray Train keeps of its own while it runs, and the word to stop."""
    return Path(plan.out).resolve() / ".ray"


def spread(plan: TrainingPlan, ranks: int) -> dict[str, Any]:
    """How many workers, on what, and how they talk."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    gpus = bool(ray.cluster_resources().get("GPU"))
    return {
        "scaling_config": ScalingConfig(num_workers=ranks, use_gpu=gpus),
        "torch_config": TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo"),
        "run_config": RunConfig(name="ray", storage_path=str(kept(plan))),
    }


@contextmanager
def stopping(file: Path) -> Iterator[None]:
    """While it lasts, SIGINT and SIGTERM write a file that the workers look for."""
    before = {number: signal.signal(number, lambda *_: file.touch()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fit(trainer: Any) -> None:
    """Train; what ended a worker is raised here as what it is."""
    from ray.train import TrainingFailedError

    try:
        trainer.fit()
    except TrainingFailedError as error:
        for problem in getattr(error, "worker_failures", {}).values():
            cause = getattr(problem, "cause", problem)
            if isinstance(cause, MidtrainError):
                raise cause from None
        said = " ".join(str(error).split())[:300]
        raise MidtrainError(f"Ray Train: a worker was lost: {said}; run again, it goes on from its checkpoint") from None


def main(arguments: list[str] | None = None) -> None:
    """The summary goes to standard output, and to Dagster where Dagster started this."""
    from midtrain_dagster.train.run import INTERRUPTED, report

    file, ranks, *address = sys.argv[1:] if arguments is None else arguments
    try:
        plan = TrainingPlan.read(Path(file))
        report(lambda say: train(plan, int(ranks), address[0] if address else None))
    except MidtrainError as error:
        print(f"midtrain: {error}", file=sys.stderr)
        raise SystemExit(INTERRUPTED if isinstance(error, Interrupted) else 2) from None


if __name__ == "__main__":
    main()
