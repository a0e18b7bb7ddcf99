"""A fastText classifier's file (format version 12, .bin or .ftz) as arrays; what `fasttext_kernels` needs to classify.

Joulin et al., arXiv:1607.01759; product quantization: arXiv:1612.03651. Only models with a hierarchical softmax and without
word n-grams are taken, as lid.176 is: for others `read` returns None, and the library has to do it.
"""

import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from midtrain_dagster.errors import MidtrainError

MAGIC, VERSION = 793712314, 12
HIERARCHICAL, SUPERVISED = 1, 3
CENTROIDS = 256


class Classifier(NamedTuple):
    """A model. Rows of `inputs`: the words, then the buckets of character n-grams."""

    labels: tuple[str, ...]
    words: tuple[bytes, ...]
    shortest: int  # character n-grams
    longest: int
    buckets: np.ndarray  # (bucket,) int32: row of a bucket, -1 where it was pruned; one element -2: rows follow the buckets
    bucket: int
    inputs: np.ndarray  # (rows, dim) float32
    outputs: np.ndarray  # (labels - 1, dim) float32: the inner nodes of the tree
    left: np.ndarray  # (labels - 1,) int32: children of each inner node; a leaf is a label, an inner node k is labels + k
    right: np.ndarray


def read(path: Path) -> Classifier | None:
    """The model in a file; None where it is of a kind that is not done here. Raises MidtrainError for what is no such file."""
    try:
        with path.open("rb") as file:
            return _read(file)
    except (struct.error, ValueError, IndexError, OSError, UnicodeDecodeError) as error:
        raise MidtrainError(f"language model {path}: not a fastText model ({error})") from None


def _read(file: BinaryIO) -> Classifier | None:
    magic, version = struct.unpack("<2i", file.read(8))
    if magic != MAGIC or version != VERSION:
        raise ValueError(f"magic number {magic}, version {version}")
    settings = struct.unpack("<12id", file.read(56))
    dim, ngrams, loss, kind, bucket, shortest, longest = (settings[i] for i in (0, 5, 6, 7, 8, 9, 10))
    size, count, _, _, pruned = struct.unpack("<3i2q", file.read(28))
    entries = [_entry(file) for _ in range(size)]
    pairs = np.frombuffer(file.read(8 * max(pruned, 0)), np.int32).reshape(-1, 2)
    quantized = file.read(1) != b"\0"
    inputs = _quantized(file) if quantized else _dense(file)
    outputs = _quantized(file) if file.read(1) != b"\0" and quantized else _dense(file)
    if loss != HIERARCHICAL or ngrams != 1 or kind != SUPERVISED or inputs.shape[1] != dim:
        return None
    buckets = np.full(bucket if pruned >= 0 else 1, -1 if pruned >= 0 else -2, np.int32)
    if pruned > 0:
        buckets[pairs[:, 0]] = pairs[:, 1] + count
    named = entries[count:]
    left, right = _tree([frequency for _, frequency in named])
    labels = tuple(word.decode("utf-8") for word, _ in named)
    words = tuple(word for word, _ in entries[:count])
    return Classifier(labels, words, shortest, longest, buckets, bucket, inputs, outputs, left, right)


def _entry(file: BinaryIO) -> tuple[bytes, int]:
    word = bytearray()
    while (byte := file.read(1)) not in (b"\0", b""):
        word += byte
    frequency, _ = struct.unpack("<qb", file.read(9))
    return bytes(word), frequency


def _floats(file: BinaryIO, count: int) -> np.ndarray:
    found = np.frombuffer(file.read(4 * count), np.float32)
    if found.size != count:
        raise ValueError("the file ends early")
    return found


def _dense(file: BinaryIO) -> np.ndarray:
    rows, columns = struct.unpack("<2q", file.read(16))
    return _floats(file, rows * columns).reshape(rows, columns)


def _quantized(file: BinaryIO) -> np.ndarray:
    """A quantized matrix, its rows restored."""
    normed = file.read(1) != b"\0"
    rows, _, size = struct.unpack("<2qi", file.read(20))
    codes = np.frombuffer(file.read(size), np.uint8).reshape(rows, -1)
    restored = _restored(codes, *_quantizer(file))
    if normed:
        norms = np.frombuffer(file.read(rows), np.uint8)
        restored = restored * _restored(norms[:, None], *_quantizer(file))
    return np.ascontiguousarray(restored, dtype=np.float32)


def _quantizer(file: BinaryIO) -> tuple[int, int, np.ndarray]:
    dim, _, width, _ = struct.unpack("<4i", file.read(16))
    return dim, width, _floats(file, dim * CENTROIDS)


def _restored(codes: np.ndarray, dim: int, width: int, centroids: np.ndarray) -> np.ndarray:
    """(rows, dim): each code names a centroid of its part of the columns; the last part may be narrower."""
    parts: list[Any] = []
    for part in range(codes.shape[1]):
        columns = min(width, dim - part * width)
        start = part * CENTROIDS * width
        parts.append(centroids[start : start + CENTROIDS * columns].reshape(CENTROIDS, columns)[codes[:, part]])
    return np.concatenate(parts, axis=1)


def _tree(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The Huffman tree over labels that come by falling frequency."""
    total = len(counts)
    weights = [*counts, *([10**15] * (total - 1))]
    leaf, node = total - 1, total
    left, right = np.zeros(total - 1, np.int32), np.zeros(total - 1, np.int32)
    for inner in range(total, 2 * total - 1):
        chosen = []
        for _ in range(2):
            if leaf >= 0 and weights[leaf] < weights[node]:
                chosen.append(leaf)
                leaf -= 1
            else:
                chosen.append(node)
                node += 1
        left[inner - total], right[inner - total] = chosen
        weights[inner] = weights[chosen[0]] + weights[chosen[1]]
    return left, right
