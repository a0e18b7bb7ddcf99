"""Texts as arrays of hashed words: lower-case, accents folded, punctuation as space, CJK characters words of their own."""

import unicodedata
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import polars as pl

TABLE = 0x20000  # code points with a class of their own; above, every character is a word (CJK extensions)
SINGLE_RANGES = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x0E00, 0x0E7F), (0x1000, 0x109F))


class Words(NamedTuple):
    """The words of some texts, in order; text i has words `[offsets[i], offsets[i + 1])`."""

    words: np.ndarray  # uint64 hash of the folded word
    stems: np.ndarray  # uint64 hash of its first six letters, without a plural s
    starts: np.ndarray  # int64 byte position in `data`
    ends: np.ndarray  # int64
    offsets: np.ndarray  # int64, texts + 1
    data: np.ndarray  # uint8, all texts in UTF-8
    text_offsets: np.ndarray  # int64, texts + 1: bytes of text i

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def characters(self, row: int, first: int, end: int) -> tuple[int, int]:
        """The span of words [first, end) of all words as character positions in text `row`."""
        base = self.text_offsets[row]
        if end <= first:
            return 0, 0
        return _count(self.data, base, self.starts[first]), _count(self.data, base, self.ends[end - 1])


def _count(data: np.ndarray, begin: int, end: int) -> int:
    """Characters in UTF-8 bytes: those that do not continue one."""
    return int(np.count_nonzero((data[begin:end] & 0xC0) != 0x80))


def split(texts: pl.Series) -> Words:
    """Tokenise a column of texts straight from its Arrow buffer; null is empty."""
    from midtrain_dagster.decontaminate.kernels import tokenise

    data, text_offsets = buffer(texts)
    room = len(data) // 2 + len(texts) + 2
    words, stems = np.empty(room, np.uint64), np.empty(room, np.uint64)
    starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    offsets = np.empty(len(texts) + 1, np.int64)
    classes, folds = character_tables()
    count = tokenise(data, text_offsets, classes, folds, words, stems, starts, ends, offsets)
    return Words(words[:count], stems[:count], starts[:count], ends[:count], offsets, data, text_offsets)


def buffer(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow as pa

    array = texts.cast(pl.String).fill_null("").to_arrow()
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    array = array.cast(pa.large_string())
    _, offsets, data = array.buffers()
    positions = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)
    return content, positions


@lru_cache(maxsize=1)
def character_tables() -> tuple[np.ndarray, np.ndarray]:
    """(class, folded code point) by code point: 0 separates, 1 is part of a word, 2 is a word, 3 is a mark and skipped."""
    classes, folds = np.zeros(TABLE, np.uint8), np.arange(TABLE, dtype=np.uint32)
    for code in range(TABLE):
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Mn" or code in (0x200C, 0x200D, 0x0640, 0xAD):
            classes[code] = 3
        elif category[0] in "LN" or category == "Mc":
            classes[code] = 1
            folds[code] = _fold(character)
    for low, high in SINGLE_RANGES:
        span = slice(low, high + 1)
        classes[span] = np.where(classes[span] == 1, 2, classes[span])
    return classes, folds


@lru_cache(maxsize=1)
def plain_bytes() -> np.ndarray:
    """The folded byte of each ASCII character of a word, 0 where it separates, 255 for bytes beyond ASCII."""
    classes, folds = character_tables()
    return np.concatenate([np.where(classes[:128] == 1, folds[:128], 0), np.full(128, 255)]).astype(np.uint8)


def _fold(character: str) -> int:
    """Lower case without accents: the first letter of the compatibility decomposition, if that is one letter and marks."""
    lower = character.lower()
    if len(lower) == 1 and not unicodedata.decomposition(lower):
        return ord(lower[0])
    parts = [c for c in unicodedata.normalize("NFKD", lower) if unicodedata.category(c)[0] != "M"]
    if len(parts) == 1 and ord(parts[0]) < TABLE:
        return ord(parts[0])
    return ord(lower[0])
