"""What a refresh of 1 % new documents costs, beside the first full run: `python benchmarks/refresh.py --documents 40000`.

A project of one source of JSON lines goes through every curation asset, from collection to selection, as the graph runs it. Then a new
file with 1 % more documents appears, and the same assets run again. CPU seconds are those of the ledger, so what Dagster itself
costs is shown beside them, not in them. A small project runs first, so that compilation counts for neither. Training is left out: a
changed mixture is another run by design. Prints one JSON object.
"""

import argparse
import json
import random
import shutil
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import yaml

from midtrain_dagster import definitions as composed
from midtrain_dagster.audit import costs
from midtrain_dagster.project import project as projects
from midtrain_dagster.recipes import named as recipes
from resources.lake import Lake

QUESTION = {
    "question": "A gardener plants 12 rows of tulips with 7 bulbs in each row. How many bulbs is that?",
    "answer": "#### 84",
}


def main() -> None:
    """Make, run, refresh, print."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--documents", type=int, default=40_000)
    asked.add_argument("--sentences", type=int, default=30, help="of each document")
    asked.add_argument(
        "--snapshots", action="store_true", help="the new file is a dated snapshot: the old ones are not read again"
    )
    given = asked.parse_args()
    root = Path(tempfile.mkdtemp())
    try:
        said = sentences()
        measure(root / "warm", said, 300, given.sentences, given.snapshots)
        print(json.dumps(measure(root / "measured", said, given.documents, given.sentences, given.snapshots)))
    finally:
        shutil.rmtree(root)


def sentences() -> list[str]:
    """Real sentences: descriptions and licences of installed packages."""
    found: set[str] = set()
    for file in sorted(Path(sysconfig.get_paths()["purelib"]).glob("*.dist-info/**/*")):
        if file.name in ("METADATA", "LICENSE", "LICENSE.txt", "LICENSE.md") and file.stat().st_size < 1 << 20:
            text = " ".join(file.read_text(encoding="utf-8", errors="replace").split())
            found |= {part.strip() + "." for part in text.split(". ") if 40 < len(part) < 300}
    return sorted(found)


def write(file: Path, said: list[str], first: int, count: int, length: int) -> int:
    """Documents `first` to `first + count`, each other sentences; returns the bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as out:
        for number in range(first, first + count):
            chosen = random.Random(number).sample(said, length)
            out.write(json.dumps({"id": f"d{number}", "text": f"Report {number}. " + " ".join(chosen)}) + "\n")
    return file.stat().st_size


def measure(root: Path, said: list[str], count: int, length: int, snapshots: bool) -> dict[str, Any]:
    """A first run and a refresh."""
    old, new = ("2026-01/part.jsonl", "2026-02/part.jsonl") if snapshots else ("part-1.jsonl", "part-2.jsonl")
    size = write(root / "in" / old, said, 0, count, length)
    (root / "rows").mkdir()
    (root / "rows" / "gardener_test.jsonl").write_text(json.dumps(QUESTION) + "\n")
    source = {"name": "reports", "kind": "jsonl", "location": "in/{snapshot}/*.jsonl" if snapshots else "in", "domain": "prose"}
    values = {
        "name": "refresh",
        "storage": "lake",
        "automatic": False,
        "sources": [source],
        "embedder": {"model": "fake"},
        "benchmarks": [{"name": "gardener", "path": "rows/gardener_test.jsonl"}],
        "recipes": ["smoke"],
    }
    (root / "midtrain.yaml").write_text(yaml.safe_dump(values))
    full = run(root)
    fresh = max(1, count // 100)
    write(root / "in" / new, said, count, fresh, length)
    again = run(root)
    assert again["worked_on"]["clean_documents/reports"] == fresh
    nothing = run(root)
    share = {name: round(again["cpu"][name] / spent, 4) for name, spent in full["cpu"].items() if spent > 0.05}
    return {
        "documents": count,
        "new_documents": fresh,
        "megabytes": round(size / 1e6, 1),
        "full_cpu_seconds": round(sum(full["cpu"].values()), 2),
        "refresh_cpu_seconds": round(sum(again["cpu"].values()), 2),
        "nothing_new_cpu_seconds": round(sum(nothing["cpu"].values()), 2),
        "refresh_share": round(sum(again["cpu"].values()) / sum(full["cpu"].values()), 4),
        "share_by_asset": share,
        "refresh_cpu_seconds_by_asset": {name: round(again["cpu"][name], 2) for name in share},
        "wall_seconds": [round(one["wall"], 1) for one in (full, again, nothing)],
    }


def run(root: Path) -> dict[str, Any]:
    """Everything up to selection; CPU seconds and documents worked on by asset."""
    project = projects.load(root / "midtrain.yaml")
    chosen = recipes.load("smoke")
    defs = composed.definitions(project, root, [chosen])
    began = time.perf_counter()
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            [asset for asset in defs.assets or [] if isinstance(asset, dg.AssetsDefinition)],
            selection=dg.AssetSelection.assets(["selected_documents", chosen.name]).upstream()
            - dg.AssetSelection.groups("snapshots"),
            instance=instance,
            resources=composed.resources(project, root),
        )
        lines = Lake(root, "lake").ledger.lines().filter(pl.col("run") == done.run_id)
    table = costs.by(lines, "asset")
    return {
        "cpu": dict(table.select("asset", "cpu_seconds").iter_rows()),
        "worked_on": dict(table.select("asset", "worked_on").iter_rows()),
        "wall": time.perf_counter() - began,
    }


if __name__ == "__main__":
    main()
