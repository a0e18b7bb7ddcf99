"""Tokens of texts, made once per document version and kept on disk.

A `TokenStore` is a directory: `tokens.bin` holds the tokens of every text one after another, each followed by the
end-of-text token; `index.parquet` says where the text with a given hash begins and how many tokens it has. Texts that are
already there are not tokenized again. Tokenization runs in the Rust tokenizer, in batches, on all cores.
"""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.locks import alone
from midtrain_dagster.progress import Progress

INDEX_SCHEMA = pl.Schema(
    [
        ("text_hash", pl.String()),
        ("prompt_characters", pl.String()),
        ("offset", pl.Int64()),
        ("tokens", pl.Int64()),
        ("prompts", pl.List(pl.Int64())),
    ]
)
KEYS = ["text_hash", "prompt_characters"]  # one text may have its prompt marked in several ways
BATCH_CHARACTERS = 4 << 20
PARALLEL = "TOKENIZERS_PARALLELISM"


def load_tokenizer(path: Path) -> Any:
    """The tokenizer in a directory, offline. Raises MidtrainError where there is none."""
    from transformers import AutoTokenizer

    gguf = next(iter(sorted(path.glob("*.gguf"))), None) if path.is_dir() else None
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True, **({"gguf_file": gguf.name} if gguf else {}))
    except (OSError, ValueError) as error:
        raise MidtrainError(f"{path}: no tokenizer can be loaded from here: {' '.join(str(error).split())[:200]}") from None


def decode(tokens: Sequence[list[int]], tokenizer: Path) -> list[str]:
    """Texts of token lists, by the `tokenizer.json` of a directory. It does without transformers, which takes seconds to import."""
    from tokenizers import Tokenizer

    return list(Tokenizer.from_file(str(tokenizer / "tokenizer.json")).decode_batch(tokens, skip_special_tokens=False))


def end_of_text(tokenizer: Any) -> int:
    """The token that ends a document: `<|endoftext|>` where the vocabulary has it, else the tokenizer's end of sequence."""
    known = tokenizer.get_vocab()
    for name in ("<|endoftext|>", "<|end_of_text|>"):
        if name in known:
            return int(known[name])
    if tokenizer.eos_token_id is None:
        raise MidtrainError("the tokenizer has no end-of-text token: set its eos_token")
    return int(tokenizer.eos_token_id)


def tokenize(texts: Sequence[str], tokenizer: Any, parse_special_tokens: bool = False, offsets: bool = True) -> list[Any]:
    """Encodings of texts (`ids`, and character `offsets`), without special tokens added, one Rust call for all of them.

    Unless `parse_special_tokens`, text that spells a special token stays text: a page about language models must not end
    its document in the middle. Without `offsets` the call is faster. Raises MidtrainError for a tokenizer without a Rust
    backend.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None) or getattr(tokenizer, "_tokenizer", None)
    if backend is None or not hasattr(backend, "encode_batch"):
        raise MidtrainError(f"{type(tokenizer).__name__} is not a fast tokenizer: convert it to tokenizer.json")
    with _plain(backend, parse_special_tokens):
        encode = backend.encode_batch if offsets else backend.encode_batch_fast
        return list(encode(list(texts), add_special_tokens=False))


@contextmanager
def _plain(backend: Any, parse_special_tokens: bool) -> Iterator[None]:
    """The backend without truncation and padding, with special tokens as text where wanted, on all cores; restored afterwards.

    A training in the same process tells tokenizers to use one core, by a variable that they read at every call.
    """
    before = backend.encode_special_tokens, backend.truncation, backend.padding
    parallel = os.environ.get(PARALLEL)
    os.environ[PARALLEL] = "true"
    backend.encode_special_tokens = not parse_special_tokens
    backend.no_truncation()
    backend.no_padding()
    try:
        yield
    finally:
        if parallel is None:
            del os.environ[PARALLEL]
        else:
            os.environ[PARALLEL] = parallel
        backend.encode_special_tokens = before[0]
        if before[1]:
            backend.enable_truncation(**before[1])
        if before[2]:
            backend.enable_padding(**before[2])


class TokenStore:
    """Tokens by text hash, on disk; opened for reading and for adding. One writer at a time: `add` waits."""

    def __init__(self, path: Path, tokenizer: Any, parse_special_tokens: bool = False):
        """Open or begin the store in `path`. Raises MidtrainError where it was made with another tokenizer."""
        path.mkdir(parents=True, exist_ok=True)
        self.path, self.tokenizer, self.parse_special_tokens = path, tokenizer, parse_special_tokens
        self.end_of_text = end_of_text(tokenizer)
        self.vocab_size = len(tokenizer)
        self.dtype = np.dtype("<u2" if self.vocab_size <= 1 << 16 else "<u4")
        self._check_tokenizer()
        self._load()

    def _load(self) -> None:
        index = self.path / "index.parquet"
        self.index = pl.read_parquet(index) if index.exists() else pl.DataFrame(schema=INDEX_SCHEMA)
        self._known = set(self.index.select("text_hash", "prompt_characters").iter_rows())
        self._length = int(self.index.select((pl.col("offset") + pl.col("tokens")).max()).item() or 0)

    def _check_tokenizer(self) -> None:
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        about = {
            "tokenizer": _digest(backend.to_str() if backend is not None else type(self.tokenizer).__name__),
            "end_of_text": self.end_of_text,
            "parse_special_tokens": self.parse_special_tokens,
        }
        file = self.path / "store.json"
        if not file.exists():
            partial = file.with_name(f"store.json.{os.getpid()}")
            partial.write_text(json.dumps(about))
            partial.replace(file)
        elif json.loads(file.read_text()) != about:
            raise MidtrainError(
                f"{self.path}: these tokens were made with another tokenizer; choose another directory or remove it"
            )

    def add(self, documents: pl.DataFrame, progress: Progress | None = None) -> int:
        """Tokenize the documents (`text, text_hash`, optionally `metadata`) that are not there yet; returns how many.

        The index is replaced when all are written, so that a process that dies leaves the store as it was. Other processes
        wait meanwhile.
        """
        with alone(self.path / ".lock", f"tokens in {self.path}", patience=3600.0):
            self._load()  # what others have added since
            return self._add(documents, progress)

    def _add(self, documents: pl.DataFrame, progress: Progress | None) -> int:
        new = marked(documents.select("text", "text_hash", *_present(documents))).unique(
            KEYS, keep="first", maintain_order=True
        )
        new = new.filter(pl.Series([key not in self._known for key in new.select(KEYS).iter_rows()], dtype=pl.Boolean))
        added: list[pl.DataFrame] = []
        position = self._length
        file = self.path / "tokens.bin"
        with file.open("r+b" if file.exists() else "wb") as out:
            out.truncate(position * self.dtype.itemsize)
            out.seek(0, 2)
            for batch, encodings in self._encoded(new):
                parts = [self._ids(encoding) for encoding in encodings]
                lengths = np.fromiter(map(len, parts), np.int64, len(parts))
                out.write(np.concatenate(parts).tobytes())
                marks = batch["prompt_characters"].to_list()
                prompts = [prompt_tokens(m, e.offsets) if m else [] for m, e in zip(marks, encodings, strict=True)]
                ends = position + np.cumsum(lengths)
                added.append(
                    batch.select(KEYS).with_columns(
                        offset=pl.Series(ends - lengths, dtype=pl.Int64),
                        tokens=pl.Series(lengths, dtype=pl.Int64),
                        prompts=pl.Series(prompts, dtype=pl.List(pl.Int64)),
                    )
                )
                position = int(ends[-1])
                if progress:
                    progress.advance(int(lengths.sum()))
        if added:
            self.index = pl.concat([self.index, *(rows.cast(INDEX_SCHEMA) for rows in added)])
            self._known.update(key for rows in added for key in rows.select(KEYS).iter_rows())
            self._length = position
            self._save()
        return sum(map(len, added))

    def _encoded(self, documents: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, list[Any]]]:
        """Batches with their encodings; while one is written, the next is tokenized."""

        def encode(batch: pl.DataFrame) -> list[Any]:
            marked_ = bool(batch["prompt_characters"].is_not_null().any())
            return tokenize(batch["text"].to_list(), self.tokenizer, self.parse_special_tokens, offsets=marked_)

        with ThreadPoolExecutor(1) as ahead:
            waiting: list[tuple[pl.DataFrame, Future[list[Any]]]] = []
            for batch in _batches(documents):
                waiting.append((batch, ahead.submit(encode, batch)))
                if len(waiting) > 1:
                    first, found = waiting.pop(0)
                    yield first, found.result()
            for first, found in waiting:
                yield first, found.result()

    def _ids(self, encoding: Any) -> np.ndarray:
        """Tokens of one text and the end-of-text token."""
        ids = encoding.ids
        found = np.empty(len(ids) + 1, self.dtype)
        found[:-1] = np.fromiter(ids, self.dtype, len(ids))
        found[-1] = self.end_of_text
        return found

    def _save(self) -> None:
        partial = self.path / "index.parquet.partial"
        self.index.write_parquet(partial)
        partial.replace(self.path / "index.parquet")

    @property
    def tokens(self) -> np.ndarray:
        """All tokens, one dimension, read-only memory map."""
        if self._length == 0:
            return np.empty(0, self.dtype)
        return np.memmap(self.path / "tokens.bin", dtype=self.dtype, mode="r", shape=(self._length,))

    def count(self, documents: pl.DataFrame) -> pl.DataFrame:
        """`documents` with columns `tokens` (end-of-text included), `offset`, `prompts`, in the same order.

        Raises MidtrainError where a document's text has not been added.
        """
        found = marked(documents).drop("tokens", "offset", "prompts", strict=False)
        found = found.join(self.index, on=KEYS, how="left", maintain_order="left", nulls_equal=True)
        missing = found.filter(pl.col("tokens").is_null())
        if len(missing):
            raise MidtrainError(
                f"{self.path}: {len(missing)} documents have no tokens here, first {missing['id'][0]}; add them first"
            )
        return found


def marked(documents: pl.DataFrame) -> pl.DataFrame:
    """`documents` with the column `prompt_characters`, taken from `metadata` where it is not there yet; null for none."""
    if "prompt_characters" in documents.columns:
        return documents
    if "metadata" not in documents.columns:
        return documents.with_columns(prompt_characters=pl.lit(None, pl.String))
    return documents.with_columns(prompt_characters=pl.col("metadata").str.json_path_match("$.prompt_characters"))


def _present(documents: pl.DataFrame) -> list[str]:
    return [name for name in ("prompt_characters", "metadata") if name in documents.columns]


def prompt_tokens(marks: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Flat list start, end, start, end, … of the tokens that begin inside a prompt.

    `marks` is JSON: a count of characters from the beginning of the text, or a list of [start, end].
    """
    named = json.loads(marks)
    ranges = [[0, named]] if isinstance(named, int) else named
    starts = np.array([start for start, _ in offsets])
    result: list[int] = []
    for begin, end in ranges:
        result += [int(np.searchsorted(starts, begin)), int(np.searchsorted(starts, end))]
    return result


def _batches(documents: pl.DataFrame) -> Iterator[pl.DataFrame]:
    if documents.is_empty():
        return
    size = documents["text"].str.len_bytes().cast(pl.Int64).cum_sum() // BATCH_CHARACTERS
    yield from documents.with_columns(_batch=size).partition_by("_batch", maintain_order=True, include_key=False)


def _digest(text: str) -> str:
    from hashlib import blake2b

    return blake2b(text.encode(), digest_size=16).hexdigest()
