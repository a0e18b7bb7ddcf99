"""Work in a forked process: started, waited for, and its answer."""

import json
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def child(work: Callable[[], Any], answer: Path) -> int:
    """Fork; the child does the work and writes its answer, or what it failed with.

    Returns its process id as soon as it leads a group of its own, which can be killed from then on.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        os.read(reading, 1)  # ends when the child closes its end
        os.close(reading)
        return pid
    os.setsid()
    os.close(reading)
    os.close(writing)
    code = 1
    try:
        answer.write_text(json.dumps({"answer": work()}))
        code = 0
    except BaseException as error:
        told = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()[-1500:]}
        answer.write_text(json.dumps(told))
    finally:
        os._exit(code)


def wait(pid: int, seconds: float = 120.0) -> int:
    """The child's exit code, negative for a signal; it is killed where it takes too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -99
