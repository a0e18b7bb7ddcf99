"""A Ray cluster of three nodes on this machine, each with a raylet and an object store of its own.

The same tables as locally, byte for byte, also when a node is killed in the middle; a training on two of them by Ray Train.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_graph import Project

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import Compute
from midtrain_dagster.sequences import SequenceWriter
from midtrain_dagster.tables import Tables
from midtrain_dagster.train.plan import TrainingPlan
from resources.engine import RayEngine
from resources.gpu import Gpu

ray = pytest.importorskip("ray", reason="pip install 'midtrain-dagster[ray]'")
STORE = 80 << 20  # bytes of a node's object store; Ray wants 75 MB
PATIENCE = {"RAY_raylet_start_wait_time_s": "180", "RAY_agent_register_timeout_ms": "180000", "RAY_DEDUP_LOGS": "0"}
BEFORE = ("raw_documents/prose", "raw_documents/code", "clean_documents/code", "raw_documents/asked", "clean_documents/asked")
SHARDED = {
    "clean_documents/prose": ("clean_documents", "quality_signals", "sensitive_spans"),
    "duplicate_clusters": ("signatures", "duplicate_clusters"),
    "contamination_matches/prose": ("contamination_matches",),
    "document_ratings/prose": ("document_ratings",),
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes of one core; the first one is the head, and the one that this process is connected to."""
    from ray.cluster_utils import Cluster

    shared = os.pathsep.join([str(Path(__file__).parent / "faults"), *filter(None, sys.path)])  # what the nodes' workers import
    os.environ.update(PATIENCE, PYTHONPATH=shared)

    node = {"num_cpus": 1, "object_store_memory": STORE}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    for _ in range(2):
        made.add_node(**node)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Collected, with a trained rater and with something personal in it; nothing that divides into shards has run."""
    root = tmp_path_factory.mktemp("collected")
    made = Project(root)
    text = "Write to the ferry master, jan.osten@ferry-line.org, by Friday; he keeps the list of those who wait."
    with (root / "prose.jsonl").open("a") as lines:
        lines.write(json.dumps({"id": "personal", "text": text}) + "\n")
    for asset in (BEFORE[0], "clean_documents/prose", *BEFORE[1:], "benchmark_questions", "rater/codelike"):
        made.run(asset, root)
    for table in (table for tables in SHARDED.values() for table in tables):
        shutil.rmtree(root / "lake" / "tables" / table, ignore_errors=True)
    return made


def sharded(project: Project, root: Path, compute: Compute) -> dict[str, list[str]]:
    """Run every stage that divides into shards in a copy; data versions by asset, digests of the Parquet files by table."""
    shutil.copytree(project.file.parent, root)
    graph = Project.of(root, project.settings.model_copy(update={"compute": compute}))
    found = {}
    for asset in ("clean_documents/code", "clean_documents/asked", *SHARDED):
        found[asset] = [graph.run(asset, root).data_version.value]
    tables = Tables(root / "lake" / "tables")
    for name in (name for names in SHARDED.values() for name in names):
        files = [Path(file) for file in tables.files(name)]
        found[name] = sorted(f"{file.parent.name} {hashlib.md5(file.read_bytes()).hexdigest()}" for file in files)
        assert found[name], f"nothing was written to {name}"
    return found


@pytest.fixture(scope="module")
def locally(collected: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What all of it is without Ray."""
    return sharded(collected, tmp_path_factory.mktemp("locally") / "copy", Compute(shard=1000))


def test_the_same_tables_byte_for_byte(cluster: Any, collected: Project, locally: dict[str, list[str]], tmp_path: Path) -> None:
    """What docs/operate.md says under "Move to Ray". Shards differ, too: what is written does not depend on them."""
    assert sharded(collected, tmp_path / "copy", Compute(kind="ray", address=cluster.address, shard=16)) == locally


def test_a_node_that_is_killed_in_the_middle_loses_nothing(
    cluster: Any, collected: Project, locally: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, killed = RayEngine.map, []

    def disturbed(self: RayEngine, function: Any, items: Any) -> Iterator[Any]:
        for number, result in enumerate(engine(self, function, items)):
            if number == 2 and not killed:
                killed.append(cluster.list_all_nodes()[-1])
                cluster.remove_node(killed[0], allow_graceful=False)
            yield result

    monkeypatch.setattr(RayEngine, "map", disturbed)
    try:
        on_ray = sharded(collected, tmp_path / "copy", Compute(kind="ray", address=cluster.address, shard=4))
    finally:
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
    assert killed
    assert on_ray == locally


def test_results_that_lay_on_a_dead_node_are_made_again(cluster: Any) -> None:
    def large(number: int) -> tuple[str, Any]:
        time.sleep(0.1)
        return ray.get_runtime_context().get_node_id(), np.full(200_000, number)  # too large to travel with the answer

    results = RayEngine(cluster.address).map(large, range(24))
    found = [next(results) for _ in range(2)]
    time.sleep(2)  # what was asked for ahead is done, and lies where it was made
    victim = cluster.list_all_nodes()[-1]
    cluster.remove_node(victim, allow_graceful=False)
    try:
        found += results
    finally:
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
    assert [int(values[0]) for _, values in found] == list(range(24))
    assert victim.node_id not in {node for node, _ in found[2:]}


def test_an_error_for_people_comes_back_as_one(cluster: Any) -> None:
    def fails(number: int) -> int:
        raise MidtrainError(f"shard {number} is not to be read; look at it")

    with pytest.raises(MidtrainError, match="shard 0 is not to be read"):
        list(RayEngine(cluster.address).map(fails, [0]))


def test_a_machine_without_the_project_is_said_in_words(cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text("def double(number):\n    return 2 * number\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here  # type: ignore[import-not-found]

    with pytest.raises(MidtrainError, match=r"cannot do this project's work: No module named 'only_here'; the same version"):
        list(RayEngine(cluster.address).map(only_here.double, [1]))


@pytest.fixture
def plan(tmp_path: Path) -> TrainingPlan:
    """A tiny model and 64 sequences of 32 tokens."""
    from midtrain_dagster.train.base import make_model

    make_model(tmp_path / "model", 64, 1, 32, 2, 64)
    with SequenceWriter(tmp_path / "data", 32, 64, ("general",)) as writer:
        tokens = np.random.default_rng(0).integers(64, size=(64, 32))
        writer.append(tokens, np.array([(i, 0, 32, 0, 0, 0) for i in range(64)]))
    values = {"batch_sequences": 4, "micro_batch": 2, "precision": "fp32", "threads": 1, "checkpoint_every": 1}
    given = {name: str(tmp_path / folder) for name, folder in (("model", "model"), ("sequences", "data"), ("out", "out"))}
    return TrainingPlan.from_values({**given, **values})


def command(plan: TrainingPlan, out: Path, launcher: str, address: str = "") -> tuple[list[str], dict[str, str]]:
    """How two ranks are started, and their environment."""
    compute = Compute(device="cpu", devices=2, threads=1, launcher=launcher, launch_options=(address,) if address else ())
    file = out.with_suffix(".json")
    TrainingPlan.from_values({**json.loads(plan.to_json()), "out": str(out)}).write(file)
    gpu = Gpu(compute)
    return gpu.command(file), {**os.environ, **gpu.environment(), "PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_training_on_two_workers_is_interrupted_and_goes_on(cluster: Any, plan: TrainingPlan, tmp_path: Path) -> None:
    """Stopped after some steps and gone on with: bit for bit the weights of an undisturbed torchrun with as many ranks."""
    words, environment = command(plan, tmp_path / "out", "ray", cluster.address)
    first = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    steps = tmp_path / "out" / "steps.jsonl"
    end = time.monotonic() + 240
    while not (steps.exists() and steps.read_text().count("\n") >= 2):
        assert first.poll() is None, first.communicate()[1][-3000:]
        assert time.monotonic() < end, "no step was made"
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=120)
    assert first.returncode == 130, said[-3000:]
    assert "the same command goes on from there" in said
    done = len(steps.read_text().splitlines())
    assert 2 <= done < 16

    second = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240)
    assert second.returncode == 0, second.stderr[-3000:]
    told = json.loads(second.stdout.splitlines()[-1])
    assert (told["ranks"], told["steps"]) == (2, 16)
    assert not (tmp_path / "out" / ".ray").exists()

    words, environment = command(plan, tmp_path / "alone", "local")
    subprocess.run(words, env=environment, capture_output=True, check=True, timeout=240)
    assert told["weights_digest"] == json.loads((tmp_path / "alone" / "training.json").read_text())["weights_digest"]


def test_no_cluster_is_said_in_words() -> None:
    ray.shutdown()
    with pytest.raises(MidtrainError, match="no Ray cluster answers"):
        list(RayEngine("127.0.0.1:1").map(abs, [1]))
