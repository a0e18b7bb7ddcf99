"""`python -m resources.ray_train PLAN.json RANKS [ADDRESS]`: a training on a Ray cluster, by Ray Train.

Ray forms the process group; each worker then runs what `midtrain_dagster.train.run` runs. The plan's model, sequences and OUT lie
on storage that all of them see. Started by Dagster through Pipes, the driver reports, and the workers know nothing of Dagster.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.train.plan import TrainingPlan


def worker(settings: dict[str, Any]) -> None:
    """One rank. Ray has set RANK, LOCAL_RANK and WORLD_SIZE and joined the group."""
    from midtrain_dagster.train.run import run, tell

    run(TrainingPlan.from_values(settings), tell)


def train(plan: TrainingPlan, ranks: int, address: str | None) -> dict[str, Any]:
    """Train on `ranks` workers of a cluster (None: one that is started here) and return the summary that the first one wrote."""
    try:
        import ray
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError:
        raise MidtrainError("compute.launcher: Ray is not installed: pip install 'midtrain-dagster[ray]'") from None
    shared = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_WAIT_POLICY": "passive"}
    kept = Path(plan.out).resolve() / ".ray"  # what Ray Train keeps of its own while it runs
    ray.init(address=address, include_dashboard=False, runtime_env={"env_vars": shared})
    try:
        gpus = bool(ray.cluster_resources().get("GPU"))
        TorchTrainer(
            worker,
            train_loop_config=json.loads(plan.to_json()),
            scaling_config=ScalingConfig(num_workers=ranks, use_gpu=gpus),
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo"),
            run_config=RunConfig(name="ray", storage_path=str(kept)),
        ).fit()
    finally:
        ray.shutdown()
        shutil.rmtree(kept, ignore_errors=True)
    return dict(json.loads((Path(plan.out) / "training.json").read_text()))


def main(arguments: list[str] | None = None) -> None:
    """The summary goes to standard output, and to Dagster where Dagster started this."""
    from midtrain_dagster.train.run import report

    file, ranks, *address = sys.argv[1:] if arguments is None else arguments
    try:
        plan = TrainingPlan.read(Path(file))
        report(lambda say: train(plan, int(ranks), address[0] if address else None))
    except MidtrainError as error:
        print(f"midtrain: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
