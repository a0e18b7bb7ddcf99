"""Training needs torch, transformers, safetensors and what these need; nothing else of ours or of others."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from midtrain_dagster.sequences import Sequences
from midtrain_dagster.train.plan import TrainingPlan

PROGRAM = '''
import re, sys
from importlib import metadata

def needed(names):
    found, todo = set(), list(names)
    while todo:
        name = re.sub("[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        todo += [re.match("[A-Za-z0-9._-]+", line)[0] for line in required if "extra ==" not in line]
    return found

allowed = needed(["torch", "transformers", "safetensors"])
owners = metadata.packages_distributions()
others = {
    module for module, owned_by in owners.items()
    if not {re.sub("[-_.]+", "-", owner).lower() for owner in owned_by} & (allowed | {"midtrain-dagster"})
}
assert {"dagster", "polars", "duckdb", "matplotlib", "peft", "scipy"} <= others

class Without:
    """A finder that does not find the others, as on a machine that does not have them."""

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in others or name.partition(".")[0] in ("assets", "resources")
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from midtrain_dagster.train.run import main
main(sys.argv[1:])
'''


def test_a_run_needs_torch_transformers_and_safetensors_alone(
    model_dir: Path, pack: Callable[..., Sequences], tmp_path: Path
) -> None:
    data = pack(tmp_path / "data", 8)
    plan = TrainingPlan(
        str(model_dir), str(data.path), str(tmp_path / "out"), validation={"general": str(data.path)}, batch_sequences=4,
        checkpoint_every=1, threads=1, ema_decay=0.9, keep_optimizer=True,
    )  # fmt: skip
    plan.write(tmp_path / "plan.json")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "plan.json")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == 2
    assert (tmp_path / "out" / "model" / "model.safetensors").exists()
