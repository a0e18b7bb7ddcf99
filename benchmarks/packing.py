"""Speed of tokenizing, packing and reading back: `python benchmarks/packing.py DOCUMENTS TOKENIZER [SEQUENCE_LENGTH]`."""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from midtrain_dagster import files
from midtrain_dagster.mix.components import available
from midtrain_dagster.mix.mixture import mixture
from midtrain_dagster.mix.pack import Packed, pack
from midtrain_dagster.mix.tokens import TokenStore, load_tokenizer, tokenize
from midtrain_dagster.recipes.mixture import Mixture, Packing
from midtrain_dagster.sequences import Sequences

Seconds = tuple[float, float]  # by the clock; of all processors together


def clock() -> Seconds:
    return time.monotonic(), time.process_time()


def since(started: Seconds) -> Seconds:
    return time.monotonic() - started[0], time.process_time() - started[1]


def bare(frame: pl.DataFrame, tokenizer: Any, offsets: bool) -> Seconds:
    """What the tokenizer alone takes, in batches of 500 texts: `encode_batch`, or without offsets `encode_batch_fast`."""
    started = clock()
    for begin in range(0, len(frame), 500):
        tokenize(frame["text"][begin : begin + 500].to_list(), tokenizer, offsets=offsets)
    return since(started)


def whole(frame: pl.DataFrame, tokenizer: Any, length: int, folder: Path) -> tuple[Seconds, Packed]:
    """From texts to packed sequences on disk."""
    started = clock()
    store = TokenStore(folder / "tokens", tokenizer)
    store.add(frame)
    table = mixture(available(store.count(frame)), Mixture(method="natural"))
    packed = pack(frame, table, store, folder / "out", Packing(sequence_length=length))
    return since(started), packed


def reading(data: Sequences) -> tuple[float, float]:
    """GB/s of tokens with every page touched (summed), and million tokens a second of whole batches for training."""
    rows = np.arange(data.count)
    started, size = time.monotonic(), 0
    for k in range(0, data.count, 256):
        block = data.tokens[k : k + 256]
        size += block.nbytes
        np.add.reduce(np.ascontiguousarray(block).view(np.uint64 if block.nbytes % 8 == 0 else block.dtype), axis=None)
    touched = size / 1e9 / (time.monotonic() - started)
    started = time.monotonic()
    for k in range(0, min(data.count, 512), 8):
        data.batch(rows[k : k + 8])
    return touched, min(data.count, 512) * data.length / 1e6 / (time.monotonic() - started)


def main(path: Path, tokenizer_path: Path, length: int) -> None:
    """Both ways in turn, three times, after a warm-up; medians."""
    frame = pl.concat([b.documents for b in files.read([path])]).with_columns(component=pl.col("source"))
    size = frame["text"].str.len_bytes().sum() / 1e6
    tokenizer = load_tokenizer(tokenizer_path)
    alone, faster, both = [], [], []
    with tempfile.TemporaryDirectory() as name:
        whole(frame.head(200), tokenizer, length, Path(name) / "warm")
        for k in range(3):
            alone.append(bare(frame, tokenizer, offsets=True))
            faster.append(bare(frame, tokenizer, offsets=False))
            seconds, packed = whole(frame, tokenizer, length, Path(name) / str(k))
            both.append(seconds)
        touched, batches = reading(packed.sequences)
    print(f"{size:.1f} MB, {packed.tokens:,} tokens, padding {packed.padding:.4%}, cut documents {packed.cut_documents}")
    for name, k in (("by the clock", 0), ("of processor time", 1)):
        slow, quick, quickest = (statistics.median(t[k] for t in taken) for taken in (both, alone, faster))
        print(f"{name}: bare tokenizer {size / quick:.2f} MB/s, without offsets {size / quickest:.2f} MB/s")
        print(f"  tokenized, stored and packed {size / slow:.2f} MB/s: {quick / slow:.0%} and {quickest / slow:.0%} of these")
    print(f"read back with every page touched {touched:.1f} GB/s; as batches for training {batches:.0f} M tokens/s")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 2048)
