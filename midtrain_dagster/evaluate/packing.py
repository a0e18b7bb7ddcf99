"""Shared-prefix scoring: many sequences as one tree of tokens, so that a prefix is computed once and nothing is padded.

The requests of a multiple-choice question share the question, those of a subject its shots. Sorted, the sequences of
a pass become a tree whose paths they are; the tree's nodes are one row of tokens, in which each attends to its ancestors alone
and has its depth as position. Every number is the one that the sequence would have alone, up to floating-point order
(as in tree attention, 2305.09781).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np


class Tree(NamedTuple):
    """Sequences laid out for one pass."""

    tokens: np.ndarray  # (n,) int64
    positions: np.ndarray  # (n,) int64, depth in the tree
    mask: np.ndarray  # (n, n) bool: row attends to column
    paths: list[np.ndarray]  # for each sequence the nodes of its tokens, in order


def trees(sequences: Sequence[Sequence[int]], budget: int) -> Iterator[tuple[list[int], Tree]]:
    """Packs of at most `budget` nodes (a longer sequence is a pack of its own), as (indices into `sequences`, tree).

    Deterministic: sequences are taken in lexicographic order, which puts common prefixes together.
    """
    order = sorted(range(len(sequences)), key=lambda i: tuple(sequences[i]))
    members: list[int] = []
    nodes = 0
    for index in order:
        new = len(sequences[index]) - (_common(sequences[members[-1]], sequences[index]) if members else 0)
        if members and nodes + new > budget:
            yield members, tree([sequences[i] for i in members])
            members, nodes, new = [], 0, len(sequences[index])
        members.append(index)
        nodes += new
    if members:
        yield members, tree([sequences[i] for i in members])


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    length = min(len(left), len(right))
    different = np.flatnonzero(np.asarray(left[:length]) != np.asarray(right[:length]))
    return int(different[0]) if len(different) else length


def tree(sequences: Sequence[Sequence[int]]) -> Tree:
    """The tree of sequences given in lexicographic order."""
    tokens: list[int] = []
    positions: list[int] = []
    paths: list[np.ndarray] = []
    parents: list[int] = []
    for number, sequence in enumerate(sequences):
        shared = _common(sequences[number - 1], sequence) if number else 0
        path = list(paths[-1][:shared]) if number else []
        for depth in range(shared, len(sequence)):
            parents.append(path[-1] if path else -1)
            path.append(len(tokens))
            tokens.append(sequence[depth])
            positions.append(depth)
        paths.append(np.asarray(path, np.int64))
    mask = np.eye(len(tokens), dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            mask[node] |= mask[parent]
    return Tree(np.asarray(tokens, np.int64), np.asarray(positions, np.int64), mask, paths)
