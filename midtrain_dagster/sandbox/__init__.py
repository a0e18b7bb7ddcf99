"""Runs code that nobody trusts: what a model wrote, verified during synthesis and scored during evaluation.

The program gets an empty environment, its own user, process, mount and network namespaces, a read-only view of the
interpreter and the system libraries (no home directory, no /etc, no project), a private /tmp of limited size, and limits
on memory, CPU time, processes, file size and wall time. The kernel refuses it new namespaces and memory that no limit would
count. When it ends, or its time does, everything it started ends too.
Two isolations are known, `bubblewrap` and `namespaces` (unshare, mount, chroot and setpriv of util-linux); where neither
works `Sandbox.find` refuses, unless it is told that running without is fine.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple, Self

from midtrain_dagster.errors import MidtrainError

Isolation = Literal["bubblewrap", "namespaces", "none"]
Status = Literal["ok", "failed", "timeout", "memory"]

INSIDE = Path(__file__).with_name("inside.py")
OUT_OF_MEMORY = 97  # inside.py's exit code for MemoryError
OUTPUT_BYTES = 1 << 20  # of stdout and of stderr that are kept
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/alternatives")  # the last: where awk and others are links to
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}
FIRST_USER, USERS = 60_000, 5_000  # user ids that nothing else runs under; one each, so that process limits count one program
_users = count(os.getpid())


class Outcome(NamedTuple):
    """How a program ended."""

    status: Status  # ok: exit code 0; failed: any other; timeout: wall or CPU time; memory: its limit
    exit_code: int  # minus the signal where one ended it
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True)
class Sandbox:
    """An isolation that was seen to work on this machine. Make one with `find`."""

    isolation: Isolation

    @classmethod
    def find(cls, allow_unisolated: bool = False) -> Self:
        """The best isolation that works here: it is tried, not assumed.

        Raises MidtrainError where none does and `allow_unisolated` is false.
        """
        failures = []
        for isolation in ("bubblewrap", "namespaces"):
            problem = _try(isolation)
            if problem is None:
                return cls(isolation)
            failures.append(f"{isolation}: {problem}")
        if allow_unisolated:
            return cls("none")
        raise MidtrainError(
            "generated code is not run, because nothing isolates it on this machine ("
            + "; ".join(failures)
            + "); install bubblewrap, or allow unisolated runs in the project file if this machine is disposable"
        )

    def run(
        self,
        code: str,
        *,
        stdin: str = "",
        timeout: float = 10.0,
        memory_mb: int = 512,
        processes: int = 16,
        file_mb: int = 16,
        disk_mb: int = 64,
        files: Mapping[str, str] | None = None,
        language: Literal["python", "bash"] = "python",
    ) -> Outcome:
        """Run `code` and say how it ended. Never raises for anything the code does.

        `files` (name to content, no directories) lie read-only in /program beside it; it starts in /tmp, which holds
        `disk_mb` and is gone afterwards. `timeout` is wall time in seconds, and CPU time rounded up.
        """
        with tempfile.TemporaryDirectory(prefix="midtrain-sandbox-") as directory:
            program = Path(directory) / "program"
            _lay_out(program, {**(files or {}), "main.py" if language == "python" else "main.sh": code})
            limits = {
                "RLIMIT_AS": memory_mb << 20,
                "RLIMIT_CPU": int(timeout) + 1,
                "RLIMIT_FSIZE": file_mb << 20,
                "RLIMIT_NOFILE": 64,
                "RLIMIT_CORE": 0,
            }
            if self.isolation != "none":  # without, it would count everything the user runs
                limits["RLIMIT_NPROC"] = processes
            command = None if language == "python" else ["/bin/bash", "/program/main.sh"]
            about = {"user": self._user(), "limits": limits, "filter": self.isolation != "none", "command": command}
            inside = json.dumps(about)
            return _execute(self._argv(program, inside, disk_mb), Path(directory), stdin, timeout)

    def _user(self) -> int | None:
        """The user to become. Only root has to: its processes are not counted against any limit."""
        return FIRST_USER + next(_users) % USERS if self.isolation != "none" and os.geteuid() == 0 else None

    def _argv(self, program: Path, inside: str, disk_mb: int) -> list[str]:
        if self.isolation == "bubblewrap":
            return _bubblewrap(program, inside, disk_mb)
        if self.isolation == "namespaces":
            return _namespaces(program, inside, disk_mb)
        # Without isolation there is no /program: the files are where they were laid out, which is on the program's sys.path.
        text = INSIDE.read_text(encoding="utf-8").replace("/program", str(program))
        return [sys.executable, "-I", "-c", text, inside.replace("/program", str(program))]


def run(code: str, *, stdin: str = "", timeout: float = 10.0, memory_mb: int = 512) -> Outcome:
    """Run Python `code` in the best isolation of this machine; see `Sandbox.run`."""
    return Sandbox.find().run(code, stdin=stdin, timeout=timeout, memory_mb=memory_mb)


@cache
def _try(isolation: Isolation) -> str | None:
    """Why an isolation does not work here; None when it does."""
    tool = "bwrap" if isolation == "bubblewrap" else "unshare"
    if shutil.which(tool) is None:
        return f"{tool} is not installed"
    probe = replace(Sandbox("none"), isolation=isolation).run("import os; print(os.listdir('/tmp'))", timeout=20)
    if probe.status == "ok" and probe.stdout.strip() == "[]":
        return None
    return " ".join((probe.stderr or probe.stdout or probe.status).split())[-200:]


def _lay_out(program: Path, files: Mapping[str, str]) -> None:
    program.mkdir(mode=0o755)
    for name, content in files.items():
        path = program / name
        if path.parent != program:
            raise ValueError(f"{name}: files of a program have no directories")
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        path.chmod(0o644)


def _interpreter() -> tuple[list[tuple[str, str]], str]:
    """What to show of the file system as (outside, inside), and the interpreter's path inside.

    Only the interpreter's own prefix is shown, at /python, so that one installed under a home directory shows no more of it.
    """
    shown = [(path, path) for path in SYSTEM if Path(path).exists()]
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if Path(sys.base_prefix).is_relative_to("/usr"):
        return shown, f"{sys.base_prefix}/bin/{name}"
    return [*shown, (sys.base_prefix, "/python")], f"/python/bin/{name}"


def _environment(interpreter: str) -> dict[str, str]:
    if not interpreter.startswith("/python/"):
        return ENVIRONMENT
    return {**ENVIRONMENT, "LD_LIBRARY_PATH": "/python/lib"}


def _bubblewrap(program: Path, inside: str, disk_mb: int) -> list[str]:
    shown, interpreter = _interpreter()
    argv = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if os.geteuid() == 0:  # no user namespace, so that it can become a user whose processes are counted; no other privilege
        argv += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        argv += ["--unshare-user"]
    argv += ["--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox"]
    argv += ["--perms", "0755", "--dir", "/etc"]
    for outside, within in shown:
        argv += ["--ro-bind", outside, within]
    argv += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", str(disk_mb << 20), "--tmpfs", "/tmp"]
    argv += ["--ro-bind", str(program), "/program", "--ro-bind", str(INSIDE), "/inside.py", "--remount-ro", "/"]
    for name, value in _environment(interpreter).items():
        argv += ["--setenv", name, value]
    return [*argv, "--chdir", "/tmp", interpreter, "-I", "-S", "/inside.py", inside]


def _namespaces(program: Path, inside: str, disk_mb: int) -> list[str]:
    """The same view by hand: a new root on a tmpfs, mounted inside the new namespaces, entered by chroot."""
    shown, interpreter = _interpreter()
    root = program.with_name("root")
    root.mkdir()
    quoted = f"'{root}'"
    lines = ["set -e", "mount --make-rprivate /", f"mount -t tmpfs -o mode=755 none {quoted}", f"cd {quoted}"]
    for outside, within in [*shown, (str(program), "/program")]:
        lines += [f"mkdir -p .{within}", f"mount --bind '{outside}' .{within}", f"mount -o remount,ro,bind .{within}"]
    lines += ["mkdir -p tmp proc dev", f"mount -t tmpfs -o mode=1777,size={disk_mb << 20} none tmp", "mount -t proc none proc"]
    lines += [f"touch dev/{name} && mount --bind /dev/{name} dev/{name}" for name in ("null", "zero", "urandom")]
    lines += [f"cp '{INSIDE}' inside.py", "chmod 644 inside.py", "mount -o remount,ro ."]
    drop = "setpriv --no-new-privs --bounding-set=-all --inh-caps=-all"
    if os.geteuid() == 0:
        drop = "setpriv --no-new-privs --bounding-set=-all,+setuid,+setgid --inh-caps=-all"
    environment = " ".join(f"{name}={value}" for name, value in _environment(interpreter).items())
    lines += [
        f'exec env -i {environment} /usr/sbin/chroot . /usr/bin/env -C /tmp {drop} {interpreter} -I -S /inside.py "$0"',
    ]
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    spaces = ["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
    # unshare forgets a death signal when it becomes another user, and heeds no TERM: timeout turns the one into a KILL.
    watched = ["setpriv", "--pdeathsig", "TERM", "timeout", "--kill-after=0.1", "3600"]
    return [*watched, "unshare", *user, *spaces, "/bin/sh", "-c", "\n".join(lines), inside]


def _execute(argv: list[str], directory: Path, stdin: str, timeout: float) -> Outcome:
    """Start, wait, kill the group. Output goes to files, which the file size limit bounds and nothing can block on."""
    (directory / "stdin").write_bytes(stdin.encode("utf-8", "surrogatepass"))
    with (
        (directory / "stdin").open("rb") as given,
        (directory / "stdout").open("wb") as out,
        (directory / "stderr").open("wb") as err,
    ):
        started = time.monotonic()
        process = subprocess.Popen(
            argv, stdin=given, stdout=out, stderr=err, env=ENVIRONMENT, cwd="/", start_new_session=True, close_fds=True
        )
        timed_out = False
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            _kill(process)
        seconds = time.monotonic() - started
    stdout, stderr = (_text(directory / name) for name in ("stdout", "stderr"))
    return Outcome(_status(process.returncode, timed_out, stderr), process.returncode, stdout, stderr, seconds)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _status(exit_code: int, timed_out: bool, stderr: str) -> Status:
    ended_by = exit_code - 128 if exit_code > 128 else -exit_code  # shells and bubblewrap report signals as 128 + number
    if timed_out or ended_by == signal.SIGXCPU:
        return "timeout"
    if exit_code == 0:
        return "ok"
    return "memory" if exit_code == OUT_OF_MEMORY and "MemoryError" in stderr else "failed"


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(OUTPUT_BYTES).decode("utf-8", "replace")
