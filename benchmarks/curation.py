"""Speed and agreement of cleaning and deduplication against datatrove, side by side in one run.

    python benchmarks/curation.py --in documents.parquet --peer-python /path/to/peer/bin/python [--documents 500]

The peer lives in its own environment (`pip install datatrove==0.10.0 spacy regex pyarrow tokenizers orjson "xxhash<4"`). Speeds are megabytes of text per CPU second of one
process. Not a timed test: it prints one JSON object and asserts nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from midtrain_dagster.clean.rules import RULESETS
from midtrain_dagster.clean.signals import quality_signals
from midtrain_dagster.deduplicate.cluster import cluster
from midtrain_dagster.deduplicate.signatures import signatures

PEER = """
import json, sys, time
import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter
from datatrove.pipeline.dedup.minhash import MinhashDedupSignature
from datatrove.utils.text import split_into_parts

table = pq.read_table(sys.argv[1]).to_pylist()
filters = {"gopher": GopherQualityFilter(), "gopher_repetition": GopherRepetitionFilter(), "c4": C4QualityFilter(),
           "fineweb": FineWebQualityFilter()}
filters["gopher"].filter(Document(text="warm up " * 60, id="0"))
decisions, seconds = {}, {}
for name, peer in filters.items():
    split_into_parts.cache_clear()
    start, kept = time.process_time(), []
    for row in table:
        try:
            kept.append(peer.filter(Document(text=row["text"], id=row["id"])) is True)
        except ZeroDivisionError:
            kept.append(False)
    decisions[name], seconds[name] = kept, time.process_time() - start
signer = MinhashDedupSignature(output_folder=sys.argv[3])
start = time.process_time()
for row in table:
    shingles = signer.get_shingles(row["text"])
    if shingles.size:
        signer.get_signature(shingles)
seconds["minhash_signatures"] = time.process_time() - start
json.dump({"decisions": decisions, "seconds": seconds}, open(sys.argv[2], "w"))
"""


def ours(documents: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, float]]:
    """Decisions of each ruleset, and CPU seconds of all signals and of signatures with clusters."""
    quality_signals(documents["text"][:2])  # compiled, or read from the cache
    signatures(documents[:2])
    started = time.process_time()
    signals = quality_signals(documents["text"])
    kept = signals.select(
        **{
            name: pl.sql_expr(" AND ".join(f"coalesce({rule['keep']}, FALSE)" for rule in rules))
            for name, rules in RULESETS.items()
        }
    )
    measured = time.process_time()
    cluster(signatures(documents))
    return kept, {"signals": measured - started, "signatures_and_clusters": time.process_time() - measured}


def peer(documents: pl.DataFrame, python: Path) -> dict[str, dict]:
    """What datatrove decides, and its CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        source, answer = Path(folder) / "documents.parquet", Path(folder) / "answer.json"
        documents.select("id", "text").write_parquet(source)
        subprocess.run([python, "-c", PEER, source, answer, Path(folder) / "signatures"], check=True, stdout=subprocess.DEVNULL)
        return json.loads(answer.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in", dest="source", type=Path, required=True, help="Parquet with id, text and text_hash")
    parser.add_argument("--peer-python", type=Path, help="the Python of an environment with datatrove")
    parser.add_argument("--documents", type=int, default=500, help="how many documents, evenly spread over the file")
    options = parser.parse_args()
    everything = pl.read_parquet(options.source)
    documents = everything.gather_every(max(len(everything) // options.documents, 1))
    megabytes = documents["text"].str.len_bytes().sum() / 1e6
    kept, seconds = ours(documents)
    report: dict[str, object] = {"documents": len(documents), "megabytes": round(megabytes, 3)}
    report["ours_megabytes_per_cpu_second"] = {name: round(megabytes / spent, 2) for name, spent in seconds.items()}
    if options.peer_python is None or not options.peer_python.exists():
        print("peer skipped: no --peer-python with datatrove==0.10.0, spacy and pyarrow", file=sys.stderr)
    else:
        answer = peer(documents, options.peer_python)
        spent = answer["seconds"]
        report["peer_megabytes_per_cpu_second"] = {name: round(megabytes / value, 3) for name, value in spent.items()}
        report["ratio_all_signals_to_peer_gopher"] = round(spent["gopher"] / seconds["signals"], 1)
        report["ratio_signatures_and_clusters_to_peer_signatures"] = round(
            spent["minhash_signatures"] / seconds["signatures_and_clusters"], 1
        )
        theirs = pl.DataFrame(answer["decisions"])
        report["agreement"] = {name: round(float((kept[name] == theirs[name]).mean()), 4) for name in theirs.columns}
        report["differing_ids"] = {n: documents["id"].filter(kept[n] != theirs[n]).to_list()[:10] for n in theirs.columns}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
