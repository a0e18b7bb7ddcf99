"""Work that divides into shards: one function over many pieces, here or on other machines, with results in order.

The stages know this protocol alone. Results must not depend on who computes them, nor on how many do.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

A = TypeVar("A")
B = TypeVar("B")


class Engine(Protocol):
    """Where shards are worked on."""

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """`map(function, items)`, results in the order of the items. Both must be picklable where other machines take part."""


class Here:
    """This process, one shard after another; the kernels below use its cores."""

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        yield from map(function, items)
