"""Runs whose process is gone: they are ended in Dagster's records, and what they held is given back.

A run that was killed by SIGKILL, or by the machine going down, stays "started" in Dagster for good and keeps its places in
pools such as `gpu`, so that whoever comes next waits for ever. A run of `midtrain run` therefore holds a lock on a file while
it lives; the kernel lets go of it when the process ends, however it ends. A run of the UI belongs to a server, which answers
while it lives.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from midtrain_dagster.locks import alone, held

if TYPE_CHECKING:
    import dagster as dg

HOST_TAG = "midtrain/host"
SERVER_TAG = ".dagster/grpc_info"  # host, and port or socket, of the server that a run of the UI was started by


@contextmanager
def alive(instance: "dg.DagsterInstance", run_id: str) -> Iterator[dict[str, str]]:
    """Hold the lock of a run for as long as this process runs it; gives the tags by which others find it."""
    place = _lock(instance, run_id)
    with alone(place, f"run {run_id}"):
        yield {HOST_TAG: socket.gethostname()}
    place.unlink(missing_ok=True)


def end_abandoned(instance: "dg.DagsterInstance") -> list[str]:
    """Mark runs of this machine whose process is gone as failed, and free their places in pools; returns their ids.

    A run started on another machine is left alone: only that one can tell.
    """
    import dagster as dg
    from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

    ended = []
    for run in instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES)):
        if not _gone(instance, run):
            continue
        instance.report_run_failed(run, "Its process is gone: it was killed, or the machine went down. Run it again.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        _lock(instance, run.run_id).unlink(missing_ok=True)
        ended.append(run.run_id)
    return ended


def _gone(instance: "dg.DagsterInstance", run: "dg.DagsterRun") -> bool:
    if run.tags.get(HOST_TAG) == socket.gethostname():
        return not held(_lock(instance, run.run_id))
    server = json.loads(run.tags.get(SERVER_TAG, "null"))
    return server is not None and not _answers(server)


def _lock(instance: "dg.DagsterInstance", run_id: str) -> Path:
    return Path(instance.root_directory) / "alive" / run_id


def _answers(server: dict[str, str | int]) -> bool:
    """Whether a local server takes connections; one on another host is believed to."""
    host = str(server.get("host", "localhost"))
    if host not in ("localhost", "127.0.0.1", socket.gethostname()):
        return True
    path, port = server.get("socket"), int(server.get("port") or 0)
    with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path) if path else (host, port))
        except OSError:
            return False
    return True
