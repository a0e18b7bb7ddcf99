"""Packed training sequences on disk: what packing writes and training reads.

A directory holds

- `sequences.json`: length, count, vocabulary size, token type, component names, digest of the content;
- `tokens.bin`: `count × length` unsigned integers (16 bits where the vocabulary allows, else 32), little-endian,
  in the order in which training reads them;
- `loss_mask.bin`: `count × length` bytes, 1 where a token is a target (absent: every token of a span is one);
- `spans.npy`: int64 rows `sequence, start, length, component, document, document_offset`, sorted by sequence and start:
  which document (a row number of `documents.parquet`) each span came from, and at which of its tokens it begins.
  A position that no span covers is padding;
- `documents.parquet`: `id, text_hash, source, component`, one row a packed document (written by the packer; training does not
  read it, lineage does).

Only numpy is needed here, so that training runs on a machine that has torch and nothing else of ours.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

import numpy as np

from midtrain_dagster.errors import MidtrainError

SPAN_COLUMNS = ("sequence", "start", "length", "component", "document", "document_offset")
DOCUMENTS_GROUP = 1 << 13  # rows of a row group of documents.parquet: an audit reads the groups that it is about


@dataclass(frozen=True)
class Sequences:
    """Packed sequences, read through a memory map."""

    path: Path
    length: int
    count: int
    vocab_size: int
    dtype: str
    components: tuple[str, ...]
    digest: str

    @classmethod
    def open(cls, path: Path) -> "Sequences":
        try:
            about = json.loads((path / "sequences.json").read_text())
        except FileNotFoundError:
            raise MidtrainError(
                f"{path}: no packed sequences here (sequences.json is missing); `midtrain mix` writes them"
            ) from None
        found = cls(path=path, **{**about, "components": tuple(about["components"])})
        expected = found.count * found.length * np.dtype(found.dtype).itemsize
        actual = (path / "tokens.bin").stat().st_size
        if actual != expected:
            raise MidtrainError(f"{path}/tokens.bin: {actual} bytes where sequences.json promises {expected}; pack again")
        return found

    @cached_property
    def tokens(self) -> np.ndarray:
        """(count, length), read-only memory map."""
        if self.count == 0:
            return np.empty((0, self.length), dtype=self.dtype)
        return np.memmap(self.path / "tokens.bin", dtype=self.dtype, mode="r", shape=(self.count, self.length))

    @cached_property
    def loss_mask(self) -> np.ndarray | None:
        """(count, length) of 0 and 1, or None where every token of a span is a target."""
        file = self.path / "loss_mask.bin"
        if not file.exists() or self.count == 0:
            return None
        return np.memmap(file, dtype=np.uint8, mode="r", shape=(self.count, self.length))

    @cached_property
    def spans(self) -> np.ndarray:
        """(spans, 6) int64 with SPAN_COLUMNS."""
        return np.load(self.path / "spans.npy", mmap_mode="r")

    @cached_property
    def _first_span(self) -> np.ndarray:
        return np.searchsorted(self.spans[:, 0], np.arange(self.count + 1))

    def spans_of(self, sequence: int) -> np.ndarray:
        """The spans of one sequence, (n, 6)."""
        return np.asarray(self.spans[self._first_span[sequence] : self._first_span[sequence + 1]])

    def batch(self, sequences: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays of shape (len(sequences), length) for a training step.

        - `tokens` int64;
        - `segment` int32: 1, 2, … for the documents of a sequence in order, 0 for padding: attention stays inside a segment;
        - `position` int32: position inside the segment, from 0;
        - `component` int32: index into `components`, -1 for padding;
        - `target` bool: whether this token, as a target, counts in the loss. The first token of a segment never does:
          what precedes it is another document.
        """
        rows = np.asarray(sequences, dtype=np.int64)
        shape = (len(rows), self.length)
        tokens = np.asarray(self.tokens[rows], dtype=np.int64)
        first, last = self._first_span[rows], self._first_span[rows + 1]
        counts = last - first
        begin = np.cumsum(counts) - counts
        number = np.arange(int(counts.sum())) - np.repeat(begin, counts)  # of each span in its sequence
        spans = np.asarray(self.spans)[np.repeat(first, counts) + number]
        starts = np.repeat(np.arange(len(rows)) * self.length, counts) + spans[:, 1]
        lengths = spans[:, 2]
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = np.repeat(starts, lengths) + within
        segment, position = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        component = np.full(shape, -1, np.int32)
        target = np.zeros(shape, bool)
        segment.reshape(-1)[places] = np.repeat(number + 1, lengths)
        position.reshape(-1)[places] = within
        component.reshape(-1)[places] = np.repeat(spans[:, 3], lengths)
        target.reshape(-1)[places] = within > 0
        if self.loss_mask is not None:
            target &= self.loss_mask[sequences].astype(bool)
        return {"tokens": tokens, "segment": segment, "position": position, "component": component, "target": target}


class SequenceWriter:
    """Writes sequences one after another; the directory is complete once `close` has written `sequences.json`."""

    def __init__(self, path: Path, length: int, vocab_size: int, components: tuple[str, ...], masked: bool = False):
        path.mkdir(parents=True, exist_ok=True)
        self.path, self.length, self.vocab_size, self.components = path, length, vocab_size, components
        self.dtype = "<u2" if vocab_size <= 1 << 16 else "<u4"
        self.count = 0
        self._tokens = (path / "tokens.bin").open("wb")
        self._mask = (path / "loss_mask.bin").open("wb") if masked else None
        self._spans: list[np.ndarray] = []
        self._hash = blake2b(digest_size=16)

    def append(self, tokens: np.ndarray, spans: np.ndarray, loss_mask: np.ndarray | None = None) -> None:
        """Add sequences: tokens and loss_mask (n, length); spans (m, 6) whose `sequence` counts from 0 within this call."""
        block = np.ascontiguousarray(tokens, dtype=self.dtype)
        rows = np.asarray(spans, dtype=np.int64).reshape(-1, len(SPAN_COLUMNS)).copy()
        rows[:, 0] += self.count
        self._tokens.write(block.tobytes())
        self._hash.update(block.tobytes())
        self._hash.update(rows.tobytes())
        if self._mask is not None:
            mask = np.ones(block.shape, np.uint8) if loss_mask is None else np.ascontiguousarray(loss_mask, dtype=np.uint8)
            self._mask.write(mask.tobytes())
            self._hash.update(mask.tobytes())
        self._spans.append(rows)
        self.count += len(block)

    def close(self) -> Sequences:
        self._tokens.close()
        if self._mask is not None:
            self._mask.close()
        spans = np.concatenate(self._spans) if self._spans else np.empty((0, len(SPAN_COLUMNS)), np.int64)
        np.save(self.path / "spans.npy", spans)
        about = {
            "length": self.length,
            "count": self.count,
            "vocab_size": self.vocab_size,
            "dtype": self.dtype,
            "components": list(self.components),
            "digest": self._hash.hexdigest(),
        }
        (self.path / "sequences.json").write_text(json.dumps(about, indent=2))
        return Sequences.open(self.path)

    def __enter__(self) -> "SequenceWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._tokens.close()
