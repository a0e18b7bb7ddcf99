"""A function over many items, in worker processes where asked, with results in the order of the items."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

CHUNK = 32  # items sent to a worker at a time
AHEAD = 4  # chunks a worker that wait or are being worked on


def ordered_map(function: Callable[[A], B], items: Iterable[A], workers: int) -> Iterator[B]:
    """`map(function, items)`, by `workers` processes. At most a few chunks are held, however many items there are.

    The function and its arguments must be picklable. Processes are started fresh (forkserver): nothing of this
    process's threads or handles is inherited.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    from concurrent.futures import Future, ProcessPoolExecutor
    from multiprocessing import get_context

    source = iter(items)
    waiting: deque[Future[list[B]]] = deque()
    pool = ProcessPoolExecutor(workers, mp_context=get_context("forkserver"))
    try:
        while chunk := list(islice(source, CHUNK)):
            waiting.append(pool.submit(_each, function, chunk))
            if len(waiting) >= AHEAD * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _each(function: Callable[[A], B], chunk: list[A]) -> list[B]:
    return [function(item) for item in chunk]
