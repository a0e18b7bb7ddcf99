"""A function over many items, in worker processes where asked, with results in the order of the items."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from midtrain_dagster.shards import Engine

A = TypeVar("A")
B = TypeVar("B")

CHUNK = 8  # items sent to a worker at a time: fewer, and the last chunk keeps one core busy and the others idle for less long
CHUNK_BYTES = 4 << 20  # or fewer, where they are large
AHEAD = 4  # chunks a worker that wait or are being worked on


def ordered_map(
    function: Callable[[A], B], items: Iterable[A], workers: int | Engine, size: Callable[[A], int] = lambda item: 0
) -> Iterator[B]:
    """`map(function, items)`, by `workers` processes or the machines of an engine. At most a few chunks are held, however many
    items there are; `size` tells an item's bytes.

    The function and its arguments must be picklable. Processes are started fresh (forkserver): nothing of this
    process's threads or handles is inherited.
    """
    if not isinstance(workers, int):
        for results in workers.map(partial(_each, function), _chunks(items, size)):
            yield from results
        return
    if workers <= 1:
        yield from map(function, items)
        return
    from concurrent.futures import Future, ProcessPoolExecutor
    from multiprocessing import get_context

    source = iter(items)
    waiting: deque[Future[list[B]]] = deque()
    pool = ProcessPoolExecutor(workers, mp_context=get_context("forkserver"))
    try:
        while chunk := _chunk(source, size):
            waiting.append(pool.submit(_each, function, chunk))
            if len(waiting) >= AHEAD * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _chunks(items: Iterable[A], size: Callable[[A], int]) -> Iterator[list[A]]:
    source = iter(items)
    while chunk := _chunk(source, size):
        yield chunk


def _chunk(items: Iterator[A], size: Callable[[A], int]) -> list[A]:
    chunk: list[A] = []
    total = 0
    for item in items:
        chunk.append(item)
        total += size(item)
        if len(chunk) >= CHUNK or total >= CHUNK_BYTES:
            break
    return chunk


def _each(function: Callable[[A], B], chunk: list[A]) -> list[B]:
    return [function(item) for item in chunk]
