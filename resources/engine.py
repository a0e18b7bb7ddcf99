"""Where shards are worked on: in this process, or on a Ray cluster. Ray is an optional extra: `pip install 'midtrain-dagster[ray]'`."""

import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import Compute
from midtrain_dagster.shards import Engine, Here

A = TypeVar("A")
B = TypeVar("B")
AHEAD = 3  # shards a core of the cluster that wait or are being worked on


class RayEngine:
    """Shards as tasks of an existing Ray cluster. A task whose machine dies is done again elsewhere, as often as it takes.

    Workers need this package installed (or on a shared path), and the lake where raters read their models.
    """

    def __init__(self, address: str):
        self.address = address

    def _connected(self) -> Any:
        try:
            import ray
        except ImportError:
            raise MidtrainError("compute.kind is ray, and Ray is not installed: pip install 'midtrain-dagster[ray]'") from None
        if not ray.is_initialized():
            try:
                self._reach()
                ray.init(address=self.address, log_to_driver=False, configure_logging=False)
            except (OSError, RuntimeError, ValueError) as error:
                said = " ".join(str(error).split())[:200]
                raise MidtrainError(f"compute.address: no Ray cluster answers at {self.address}: {said}") from None
        return ray

    def _reach(self) -> None:
        """OSError where nobody listens: Ray itself would try for minutes."""
        host, _, port = self.address.removeprefix("ray://").rpartition(":")
        if host and port.isdigit():
            socket.create_connection((host, int(port)), timeout=10).close()

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """Results in the order of the items; a few shards a core are on their way at a time."""
        ray = self._connected()
        task = ray.remote(max_retries=-1, num_cpus=1)(_apply)
        shared = ray.put(function)
        waiting: deque[Any] = deque()
        for item in items:
            waiting.append(task.remote(shared, item))
            if len(waiting) >= AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1))):
                yield _result(ray, waiting.popleft())
        while waiting:
            yield _result(ray, waiting.popleft())


def _apply(function: Callable[[A], B], item: A) -> B:
    return function(item)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ray.exceptions.RaySystemError):  # the worker could not load what it was sent
            said = str(error.cause).splitlines()[0].removeprefix("System error: ")
            raise MidtrainError(
                f"compute: a machine of the Ray cluster cannot do this project's work: {said}; the same version of this "
                "project has to be installed there, or lie on a path that it shares"
            ) from None
        raise error.cause from None


def engine_of(compute: Compute) -> Engine:
    """The engine that the project file names."""
    return RayEngine(compute.address) if compute.kind == "ray" else Here()
