"""Memory does not grow with a source: what is read, cleaned and compared goes to the lake a piece at a time."""

import json
import subprocess
import sys
from pathlib import Path

MEASURE = """
import json, random, resource, sys
from pathlib import Path
import dagster as dg
from assets import graph
from midtrain_dagster import definitions, pieces, staging
from midtrain_dagster.collect import collect
from midtrain_dagster.project.project import Project

pieces.PIECE = staging.HELD = collect.BATCH_CHARACTERS = 1 << 20
staging.FILE = 4 << 20
SETTINGS = {"sources": [{"name": "web", "kind": "jsonl", "location": "web.jsonl"}], "deduplication": {"memory": "64MB"}}

def row(number):
    own = random.Random(number)
    return {"id": f"{number:08}", "text": " ".join(f"{own.getrandbits(20):x}" for _ in range(700))}

def peak(root, count):
    root.mkdir()
    with (root / "web.jsonl").open("w") as file:
        for number in range(count):
            print(json.dumps(row(number)), file=file)
    project = Project(**SETTINGS)
    assets = {asset.key.to_user_string(): asset for asset in graph(project, [], root)[0]}
    made = definitions.resources(project, root)
    for name in ("raw_documents/web", "clean_documents/web", "duplicate_clusters"):
        assets[name](dg.build_asset_context(resources=made, instance=dg.DagsterInstance.ephemeral()))
    rows = made["lake"].tables.pieces("clean_documents", "web")
    return rows.total(), len(rows.files), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

root = Path(sys.argv[1])
print(json.dumps([peak(root / "one", 800), peak(root / "eight", 6400)]))
"""


def test_peak_memory_of_a_source_is_flat_from_one_to_eight_times_the_data(tmp_path: Path) -> None:
    """From 3 MB to 25 MB of text through three assets takes 31 MiB more; held whole, as it once was, 230."""
    answer = subprocess.run([sys.executable, "-c", MEASURE, tmp_path], capture_output=True, text=True, timeout=600)
    assert answer.returncode == 0, answer.stderr[-3000:]
    (rows, files, one), (many, more, eight) = json.loads(answer.stdout.splitlines()[-1])
    assert (rows, many) == (800, 6400)
    assert more > files
    assert eight - one < 80, f"{one:.0f} MiB for {rows} documents, {eight:.0f} MiB for {many}"
