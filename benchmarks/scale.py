"""What the shuffle and the indexes need at a size: a simulation that anyone can run, printed as a table.

    python benchmarks/scale.py                      # measures small samples here, then extrapolates
    python benchmarks/scale.py --terabytes 1 100    # other sizes

Measured here: bytes a document in each table, and the time of signatures and of the shuffle, on made text of the real length
distribution (log-normal, mean 4,300 characters). Everything else is arithmetic on these, and is marked so.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from midtrain_dagster.clean.clean import clean
from midtrain_dagster.deduplicate.signatures import signatures
from midtrain_dagster.documents import documents

MEAN_BYTES = 4300.0  # of a web document's text
BYTES_PER_TOKEN = 4.3
SPAN_BYTES = 48  # a row of spans.npy
DOCUMENTS_PER_SPAN = 1.15  # a document is cut now and then
SHARD = 512 << 20  # bytes of text that a partition file should hold
CORE_HOUR, TERABYTE_MONTH = 0.04, 23.0  # dollars, list prices of a large cloud; put in your own


def sample(number: int, seed: int = 0) -> pl.DataFrame:
    """Documents of random words with real lengths."""
    random = np.random.default_rng(seed)
    words = np.array(["".join(random.choice(list("abcdefghijklmnopqrstuvwxyz"), n)) for n in random.integers(2, 10, 20_000)])
    lengths = np.maximum(20, random.lognormal(np.log(MEAN_BYTES / 7) - 0.5, 1.0, number)).astype(int)
    texts = [" ".join(random.choice(words, n)) for n in lengths]
    return documents([{"id": f"{i:032x}", "text": text, "source": "made"} for i, text in enumerate(texts)])


def on_disk(frame: pl.DataFrame, folder: Path) -> int:
    path = folder / "x.parquet"
    frame.write_parquet(path, compression="zstd")
    return path.stat().st_size


def measured(number: int) -> dict[str, float]:
    """Bytes a document in each table; CPU seconds a gigabyte of text; seconds of the shuffle a million spans."""
    frame = sample(number)
    size = int(frame["text"].str.len_bytes().sum())
    clean(frame[:10])
    signatures(frame[:10])
    started = time.process_time()
    cleaned = clean(frame)
    cleaning = time.process_time() - started
    started = time.process_time()
    signed = signatures(frame)
    signing = time.process_time() - started
    with tempfile.TemporaryDirectory() as folder:
        disk = {
            "signals": on_disk(cleaned.signals, Path(folder)) / number,
            "signatures": on_disk(signed, Path(folder)) / number,
        }
    memory = signed.estimated_size() / number
    spans = 2_000_000
    started = time.perf_counter()
    order = np.random.default_rng(0).permutation(spans)
    np.zeros((spans, 6), np.int64)[order].sum()
    shuffled = time.perf_counter() - started
    return {
        "text bytes a document": size / number,
        "clean, CPU s/GB": cleaning / size * 1e9,
        "signatures, CPU s/GB": signing / size * 1e9,
        "signals, bytes a document": disk["signals"],
        "signatures, bytes a document": disk["signatures"],
        "signatures as clustering holds them, bytes a document": memory,
        "shuffle, s a million spans": shuffled / spans * 1e6,
    }


def extrapolated(terabytes: float, rates: dict[str, float]) -> dict[str, float | str]:
    """The same at a size. Linear in documents: no step here compares all pairs."""
    count = terabytes * 1e12 / MEAN_BYTES
    spans = count * DOCUMENTS_PER_SPAN
    hours = terabytes * 1000 * (rates["clean, CPU s/GB"] + rates["signatures, CPU s/GB"]) / 3600
    return {
        "text, TB": terabytes,
        "tokens, billion": terabytes * 1e12 / BYTES_PER_TOKEN / 1e9,
        "documents, million": count / 1e6,
        "files of text": terabytes * 1e12 / SHARD,
        "signals on disk, GB": count * rates["signals, bytes a document"] / 1e9,
        "signatures on disk, GB": count * rates["signatures, bytes a document"] / 1e9,
        "clustering, GB that one machine's disk holds": count
        * rates["signatures as clustering holds them, bytes a document"]
        / 1e9,
        "permutation in memory, GB": spans * 8 / 1e9,
        "spans on disk, GB": spans * SPAN_BYTES / 1e9,
        "shuffle, s": spans / 1e6 * rates["shuffle, s a million spans"],
        "clean and sign, core hours": hours,
        "of that, dollars": hours * CORE_HOUR,
        "storage, dollars a month": terabytes * 0.6 * TERABYTE_MONTH,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terabytes", type=float, nargs="+", default=[1.0, 43.0, 100.0], help="43 TB are 10 trillion tokens")
    parser.add_argument("--documents", type=int, default=2000, help="in the sample that is measured")
    chosen = parser.parse_args()
    rates = measured(chosen.documents)
    sizes = [extrapolated(size, rates) for size in chosen.terabytes]
    print("measured here:")
    for name, value in rates.items():
        print(f"  {name:<42}{value:>14,.3f}")
    print("extrapolated from that:")
    for name in sizes[0]:
        print(f"  {name:<42}" + "".join(f"{size[name]:>16,.1f}" for size in sizes))
    print(json.dumps({"measured": rates, "extrapolated": sizes}))


if __name__ == "__main__":
    main()
