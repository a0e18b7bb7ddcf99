"""Speed of tokenizing, packing and reading back: `python benchmarks/packing.py DOCUMENTS TOKENIZER [SEQUENCE_LENGTH]`."""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from midtrain_dagster import files
from midtrain_dagster.mix.components import available
from midtrain_dagster.mix.mixture import mixture
from midtrain_dagster.mix.pack import pack
from midtrain_dagster.mix.tokens import TokenStore, load_tokenizer, tokenize
from midtrain_dagster.recipes.mixture import Mixture, Packing


def main(path: Path, tokenizer_path: Path, length: int) -> None:
    frame = pl.concat([b.documents for b in files.read([path])]).with_columns(component=pl.col("source"))
    size = frame["text"].str.len_bytes().sum() / 1e6
    tokenizer = load_tokenizer(tokenizer_path)
    started = time.monotonic()
    for begin in range(0, len(frame), 500):
        tokenize(frame["text"][begin : begin + 500].to_list(), tokenizer)
    bare = time.monotonic() - started
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        store = TokenStore(Path(folder) / "tokens", tokenizer)
        store.add(frame)
        stored = time.monotonic() - started
        table = mixture(available(store.count(frame)), Mixture(method="natural"))
        packed = pack(frame, table, store, Path(folder) / "out", Packing(sequence_length=length))
        whole = time.monotonic() - started
        started = time.monotonic()
        read = sum(int(np.asarray(packed.sequences.tokens[i : i + 64]).nbytes) for i in range(0, packed.sequences.count, 64))
        back = time.monotonic() - started
    print(
        f"{size:.1f} MB of text, {packed.tokens:,} tokens, padding {packed.padding:.4%}, cut documents {packed.cut_documents}"
    )
    print(
        f"bare tokenizer {size / bare:.2f} MB/s; stored {size / stored:.2f}; stored and packed {size / whole:.2f} ({bare / whole:.0%})"
    )
    print(f"read back as views {read / 1e9 / max(back, 1e-9):.1f} GB/s")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 2048)
