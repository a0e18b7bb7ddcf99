"""A Ray cluster of several nodes on this machine: the same tables as locally, byte for byte, also when a node dies."""

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from small_graph import Project

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import Compute
from resources.engine import RayEngine

ray = pytest.importorskip("ray", reason="pip install 'midtrain-dagster[ray]'")
SHARDED = {
    "clean_documents/prose": ("clean_documents", "quality_signals", "sensitive_spans"),
    "duplicate_clusters": ("signatures", "duplicate_clusters"),
    "contamination_matches/prose": ("contamination_matches",),
    "document_ratings/prose": ("document_ratings",),
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, each with a raylet of its own; the first one is the head."""
    os.environ["RAY_agent_register_timeout_ms"] = "120000"  # noqa: SIM112 (as Ray spells it); two busy cores are slow
    from ray.cluster_utils import Cluster

    try:
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.other = made.add_node(num_cpus=1)
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        pytest.skip("Ray gives its nodes 30 s to start, and this machine was too busy for that")
    yield made
    ray.shutdown()
    made.shutdown()


def bytes_of(root: Path, tables: tuple[str, ...]) -> dict[str, list[str]]:
    """Digests of every Parquet file of some tables, sorted: names are random, contents are not."""
    found = {}
    for table in tables:
        files = (root / "lake" / "tables" / table).rglob("*.parquet")
        found[table] = sorted(f"{file.parent.name} {hashlib.md5(file.read_bytes()).hexdigest()}" for file in files)
    return found


def number_after_a_while(number: int) -> int:
    time.sleep(0.3)
    return number * number


def test_the_same_tables_byte_for_byte(cluster: Any, tmp_path: Path) -> None:
    """What docs/operate.md says under "Move to Ray"."""
    here = tmp_path / "here"
    project = Project(here)
    before = (
        "raw_documents/prose",
        "raw_documents/code",
        "clean_documents/code",
        "raw_documents/asked",
        "clean_documents/asked",
    )
    for asset in ("raw_documents/prose", "clean_documents/prose", *before[1:], "benchmark_questions", "rater/codelike"):
        project.run(asset, here)
    shutil.rmtree(here / "lake" / "tables" / "clean_documents" / "source=prose", ignore_errors=True)
    shutil.copytree(here, there := tmp_path / "there")
    settings = {"kind": "ray", "address": cluster.address, "shard": 16}
    on_ray = Project.of(here, project.settings.model_copy(update={"compute": Compute(**settings)}))
    locally = Project.of(here, project.settings.model_copy(update={"compute": Compute(shard=16)}))
    for root in (here, there):  # made anew in both places, from the same collected documents
        for table in chain(*SHARDED.values()):
            shutil.rmtree(root / "lake" / "tables" / table, ignore_errors=True)
    for graph, root in ((locally, here), (on_ray, there)):
        for asset in ("clean_documents/prose", "clean_documents/code", "clean_documents/asked", *list(SHARDED)[1:]):
            graph.run(asset, root)
    for tables in SHARDED.values():
        written = bytes_of(here, tables)
        assert all(written.values()), "nothing was written"
        assert written == bytes_of(there, tables)


def test_an_error_for_people_comes_back_as_one(cluster: Any) -> None:
    def fails(number: int) -> int:
        raise MidtrainError(f"shard {number} is not to be read; look at it")

    with pytest.raises(MidtrainError, match="shard 0 is not to be read"):
        list(RayEngine(cluster.address).map(fails, [0]))


def test_a_node_that_dies_loses_nothing(cluster: Any) -> None:
    results = RayEngine(cluster.address).map(number_after_a_while, range(24))
    found = [next(results) for _ in range(3)]
    cluster.remove_node(cluster.other, allow_graceful=False)
    assert [*found, *results] == [number * number for number in range(24)]


def test_no_cluster_is_said_in_words() -> None:
    ray.shutdown()
    with pytest.raises(MidtrainError, match="no Ray cluster answers"):
        list(RayEngine("127.0.0.1:1").map(abs, [1]))
