"""Cleaning and deduplication beside their peers, in one run on the same documents. Prints one JSON object; asserts nothing.

    python benchmarks/curation.py --in documents.parquet --peer-python PEER/bin/python    heuristics, agreement, MinHash, recall
    python benchmarks/curation.py --in documents.parquet --scale                          throughput and memory, 1x and 8x
    python benchmarks/curation.py --warc pages.warc.gz                                    extraction by one and by two processes
    python benchmarks/curation.py --math pages/                                           formulas that extraction keeps
    python benchmarks/curation.py --main pages/                                           words of the main part that extraction keeps

The peers live in an environment of their own: `pip install "datatrove[processing]==0.10.0" rensa spacy pyarrow`. Speeds are megabytes (10^6 bytes of UTF-8)
per CPU second, of all threads and children; reading the file is not in them, but for --scale, which runs the commands as they are.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from curation_pages import extraction, formulas, main_part

from midtrain_dagster.clean.rules import RULESETS
from midtrain_dagster.clean.signals import quality_signals
from midtrain_dagster.deduplicate.cluster import cluster
from midtrain_dagster.deduplicate.signatures import signatures

PEER = Path(__file__).with_name("curation_peer.py")
JACCARD = 0.8
RATIOS = {"all signals / datatrove's Gopher filter": ("signals", "gopher")}
RATIOS |= {
    "signatures and clusters / datatrove's MinHash, end to end": ("duplicates", "minhash_end_to_end"),
    "signatures / datatrove's signatures": ("signatures", "minhash_signatures"),
    "signatures / rensa's signatures": ("signatures", "rensa_signatures"),
    "language / fastText": ("language", "language"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in", dest="source", type=Path, help="Parquet with id and text")
    parser.add_argument("--peer-python", type=Path, help="the Python of an environment with datatrove")
    parser.add_argument("--peer-megabytes", type=float, default=4.0, help="how much of it the peers are given, evenly spread")
    parser.add_argument("--scale", action="store_true", help="the commands on 1x and 8x the documents")
    parser.add_argument("--warc", type=Path, help="a WARC file")
    parser.add_argument("--math", type=Path, help="a directory of HTML pages with formulas")
    parser.add_argument("--main", type=Path, help="a directory of HTML pages that mark their main part with role=main")
    parser.add_argument("--pages", type=int, default=600, help="at most so many pages, for --warc and --main")
    options = parser.parse_args()
    report: dict[str, Any] = {}
    if options.source and options.scale:
        report["scale"] = scale(pl.read_parquet(options.source, columns=["id", "text"]))
    elif options.source:
        report |= compare(pl.read_parquet(options.source, columns=["id", "text"]), options.peer_python, options.peer_megabytes)
    if options.math:
        report["formulas"] = formulas(options.math)
    if options.main:
        report["main part"] = main_part(options.main, options.pages)
    if options.warc:
        report["warc"] = extraction(options.warc, options.pages)
    print(json.dumps(report, indent=1))


def compare(documents: pl.DataFrame, python: Path | None, peer_megabytes: float) -> dict[str, Any]:
    """Ours on all documents, the peers on a part; ours again on that part for the agreement."""
    size = megabytes(documents)
    ours = {name: round(size / spent, 2) for name, spent in own_seconds(documents).items()}
    report: dict[str, Any] = {"documents": len(documents), "megabytes": round(size, 2), "ours": ours}
    if python is None:
        return report | {"peers": "skipped: no --peer-python"}
    part = documents.gather_every(max(round(size / peer_megabytes), 1))
    near = planted(part)
    with tempfile.TemporaryDirectory() as folder:
        part_file, near_file = Path(folder) / "part.parquet", Path(folder) / "near.parquet"
        part.write_parquet(part_file)
        near.write_parquet(near_file)
        filters, language = ask(python, part_file, "filters"), ask(python, part_file, "language")
        minhash, rensa = ask(python, near_file, "minhash"), ask(python, near_file, "rensa")
    peers = {name: round(megabytes(part) / spent, 3) for a in (filters, language) for name, spent in a["seconds"].items()}
    peers |= {name: round(megabytes(near) / spent, 3) for a in (minhash, rensa) for name, spent in a["seconds"].items()}
    theirs = dict(minhash["clusters"])
    labels = [theirs.get(i, -i - 1) for i in range(len(near))]
    return report | {
        "peer_megabytes": {"filters": round(megabytes(part), 2), "minhash": round(megabytes(near), 2)},
        "peers": peers,
        "ratios": {name: round(ours[a] / peers[b], 1) for name, (a, b) in RATIOS.items()},
        "agreement": agreement(part, filters["reasons"]),
        "language_agreement": same_language(part, language["labels"]),
        "near_duplicates": near_quality(near, {"ours": own_clusters(near), "datatrove": labels}),
    }


def megabytes(documents: pl.DataFrame) -> float:
    return float(documents["text"].str.len_bytes().sum()) / 1e6


def hashed(documents: pl.DataFrame) -> pl.DataFrame:
    return documents.with_columns(text_hash=pl.lit(""))


def own_seconds(documents: pl.DataFrame) -> dict[str, float]:
    """CPU seconds of our steps, the middle of three runs, machine code compiled before."""
    from midtrain_dagster.clean.clean import clean
    from midtrain_dagster.clean.language import identify
    from midtrain_dagster.documents import documents as made

    rows = hashed(documents)
    whole = made(rows.select("id", "text").to_dicts())
    steps: dict[str, Callable[[pl.DataFrame], Any]] = {
        "signals": lambda frame: quality_signals(frame["text"]),
        "signatures": lambda frame: signatures(hashed(frame)),
        "duplicates": lambda frame: cluster(signatures(hashed(frame))),
        "language": lambda frame: identify(frame["text"]),
        "clean": lambda frame: clean(whole[: len(frame)]),
    }
    found = {}
    for name, step in steps.items():
        step(rows[:3])
        found[name] = sorted(timed(step, rows) for _ in range(3))[1]
    return found


def timed(step: Callable[[pl.DataFrame], Any], rows: pl.DataFrame) -> float:
    started = time.process_time()
    step(rows)
    return time.process_time() - started


def ask(python: Path, source: Path, step: str) -> Any:
    """What a peer says, from its own environment."""
    from midtrain_dagster.clean.language import model_path

    answer = source.with_suffix(f".{step}.json")
    command = [python, PEER, source, answer, step, model_path()]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads(answer.read_text())


def agreement(documents: pl.DataFrame, theirs: dict[str, list[str | None]]) -> dict[str, Any]:
    """For each filter the share of documents with the same decision, and all that differ, with both reasons."""
    signals = quality_signals(documents["text"])
    found: dict[str, Any] = {}
    for name, reasons in theirs.items():
        kept = signals.select(**{rule["name"]: pl.sql_expr(f"coalesce({rule['keep']}, FALSE)") for rule in RULESETS[name]})
        failing = [[rule for rule, good in row.items() if not good] for row in kept.iter_rows(named=True)]
        rows = zip(documents["id"], failing, reasons, strict=True)
        differing = [{"id": key, "ours": a, "datatrove": b} for key, a, b in rows if bool(a) != (b is not None)]
        dropped = sum(reason is not None for reason in reasons)
        share = round(1 - len(differing) / max(len(documents), 1), 5)
        found[name] = {"share": share, "documents": len(documents), "peer_drops": dropped, "differing": differing[:20]}
    return found


def same_language(documents: pl.DataFrame, labels: list[str]) -> float:
    from midtrain_dagster.clean.language import identify

    named = identify(documents["text"])["language"].fill_null("")
    return round(float((named == pl.Series([label.removeprefix("__label__") for label in labels])).mean() or 0), 5)


def planted(documents: pl.DataFrame) -> pl.DataFrame:
    """The documents, and of each that is not long a copy with some words replaced: Jaccard similarities from 0.5 to 1."""
    chance = np.random.default_rng(5)
    rows = [(key, text) for key, text in documents.iter_rows()]
    for number, (key, text) in enumerate(rows[:]):
        words = text.split(" ")
        if 60 <= len(words) <= 3000:
            for position in np.flatnonzero(chance.random(len(words)) < (number % 12) * 0.006):
                words[position] = f"changed{chance.integers(1 << 30)}"
            rows.append((f"{key}#copy", " ".join(words)))
    return pl.DataFrame(rows, schema=["id", "text"], orient="row")


def own_clusters(documents: pl.DataFrame) -> list[str]:
    found = cluster(signatures(hashed(documents)))
    return documents.select("id").join(found, on="id", how="left", maintain_order="left")["near_cluster"].to_list()


def near_quality(documents: pl.DataFrame, clusterings: dict[str, list[Any]]) -> dict[str, Any]:
    """Pairs by exact Jaccard of word 5-grams, and what each clustering makes of them.

    `recall`: pairs at or above the target that are in one cluster. `precision`: pairs in one cluster that are at or above
    it. `closed` both against the connected components of the true pairs, for a cluster joins what a chain of pairs joins.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    words = documents["text"].str.to_lowercase().str.extract_all(r"\w+")
    grams = [np.unique([hash(tuple(w[i : i + 5])) for i in range(len(w) - 4)]) for w in words.to_list()]
    columns = np.unique(np.concatenate(grams), return_inverse=True)[1].ravel()
    ends = np.cumsum([0, *map(len, grams)])
    shared = csr_matrix((np.ones(len(columns), np.int32), columns, ends))
    both = (shared @ shared.T).tocoo()
    sizes = np.diff(ends)
    upper = both.row < both.col
    left, right, common = both.row[upper], both.col[upper], both.data[upper]
    similar = common / (sizes[left] + sizes[right] - common) >= JACCARD
    truth = set(zip(left[similar].tolist(), right[similar].tolist(), strict=True))
    graph = csr_matrix((np.ones(similar.sum()), (left[similar], right[similar])), shape=both.shape)
    closed = pairs_of(connected_components(graph, directed=False)[1].tolist())
    found: dict[str, Any] = {"documents": len(documents), "true_pairs": len(truth), "closed_pairs": len(closed)}
    for name, labels in clusterings.items():
        mine = pairs_of(labels)
        found[name] = {
            "pairs": len(mine),
            "recall": round(len(mine & truth) / max(len(truth), 1), 4),
            "precision": round(len(mine & truth) / max(len(mine), 1), 4),
            "closed_recall": round(len(mine & closed) / max(len(closed), 1), 4),
            "closed_precision": round(len(mine & closed) / max(len(mine), 1), 4),
        }
    return found


def pairs_of(labels: list[Any]) -> set[tuple[int, int]]:
    members: dict[Any, list[int]] = {}
    for position, label in enumerate(labels):
        members.setdefault(label, []).append(position)
    return {(a, b) for group in members.values() for i, a in enumerate(group) for b in group[i + 1 :]}


def scale(documents: pl.DataFrame) -> dict[str, Any]:
    """The commands on the documents and on eight times as many: each copy has its letters turned by another number."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        one, eight = Path(folder) / "one.parquet", Path(folder) / "eight.parquet"
        documents.write_parquet(one)
        copies = []
        for turn in range(8):
            turned = letters[turn:] + letters[:turn]
            table = str.maketrans(letters + letters.upper(), turned + turned.upper())
            texts = [text.translate(table) for text in documents["text"]]
            copies.append(pl.DataFrame({"id": documents["id"] + f"-{turn}", "text": texts}))
        pl.concat(copies).write_parquet(eight)
        del copies
        for command in ("clean", "deduplicate"):
            before, eight_times, after = (
                run(command, path, Path(folder) / f"{command}-{turn}") for turn, path in enumerate((one, eight, one))
            )
            once = (before["megabytes_per_cpu_second"] + after["megabytes_per_cpu_second"]) / 2
            found[command] = {"1x": before, "8x": eight_times, "1x again": after}
            found[command]["throughput_8x_to_1x"] = round(eight_times["megabytes_per_cpu_second"] / once, 3)
    return found


def run(command: str, source: Path, out: Path) -> dict[str, float]:
    """Run a command of ours as a process of its own: throughput without its start, and peak memory."""
    code = "import atexit, sys; from midtrain_dagster.cli import main\n"
    code += "atexit.register(lambda: sys.stderr.write(open('/proc/self/status').read())); main()"
    started = [sys.executable, "-c", code, command, "--in", str(source), "--out", str(out)]
    done = subprocess.run(started, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    return {
        "megabytes": answer["megabytes"],
        "megabytes_per_second": round(answer["megabytes"] / answer["seconds"], 2),
        "megabytes_per_cpu_second": round(answer["megabytes"] / answer["cpu_seconds"], 2),
        "peak_memory_megabytes": int(done.stderr.split("VmHWM:")[1].split()[0]) // 1024,  # wait4's is never below the parent's
    }


if __name__ == "__main__":
    main()
