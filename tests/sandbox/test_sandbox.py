"""Programs that try to get out, run in every isolation that this machine has; what it has not is a skip that says so."""

import ast
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from midtrain_dagster import sandbox
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.sandbox import Sandbox

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["bubblewrap", "namespaces"])
def box(request: pytest.FixtureRequest) -> Sandbox:
    problem = sandbox._try(request.param)
    if problem is not None:
        pytest.skip(f"NOT CHECKED: {request.param} does not work on this machine: {problem}")
    return Sandbox(request.param)


def test_runs_and_reports(box: Sandbox):
    outcome = box.run("import sys; print(sys.stdin.read().upper()); sys.stderr.write('e'); sys.exit(3)", stdin="héllo")
    assert (outcome.status, outcome.exit_code, outcome.stdout, outcome.stderr) == ("failed", 3, "HÉLLO\n", "e")
    assert box.run("print(1)").status == "ok"
    assert "ZeroDivisionError" in box.run("1/0").stderr
    assert "SyntaxError" in box.run("def").stderr


def test_files_and_shell(box: Sandbox):
    assert box.run("print(open('/program/a.txt').read())", files={"a.txt": "content"}).stdout == "content\n"
    assert box.run("import helper; print(helper.x)", files={"helper.py": "x = 7"}).stdout == "7\n"
    assert box.run("cat /program/a.txt | tr a-z A-Z", files={"a.txt": "abc"}, language="bash").stdout == "ABC"
    with pytest.raises(ValueError, match="no directories"):
        box.run("", files={"../escape": ""})


def test_environment_is_empty(box: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_KEY", "do-not-leak")
    outcome = box.run("import os; print(dict(os.environ)); print(open('/proc/1/environ').read())")
    assert "do-not-leak" not in outcome.stdout + outcome.stderr
    assert "HOME" in outcome.stdout


def test_home_and_project_are_not_visible(box: Sandbox):
    here = Path(__file__).resolve()
    paths = [str(Path.home()), "/root", "/home", "/etc/passwd", "/etc/shadow", str(here), "/sys", "/proc/1/root/etc/passwd"]
    code = f"""
import os
for path in {paths!r}:
    try:
        print(path, os.listdir(path) if os.path.isdir(path) else open(path).read())
    except OSError as error:
        print("no", type(error).__name__)
"""
    lines = box.run(code).stdout.splitlines()
    assert len(lines) == len(paths)
    assert all(line.startswith("no ") for line in lines), lines


def test_no_network(box: Sandbox):
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(3)
    accepted: list[object] = []

    def accept() -> None:
        try:
            accepted.append(server.accept())
        except OSError:
            pass

    listener = threading.Thread(target=accept)
    listener.start()
    port = server.getsockname()[1]
    outcome = box.run(f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=2); print('connected')")
    names = box.run("import socket; print(sorted(n for _, n in socket.if_nameindex()))")
    socket.create_connection(("127.0.0.1", port)).close()  # from out here it can be reached
    listener.join()
    server.close()
    assert outcome.status == "failed"
    assert "connected" not in outcome.stdout
    assert len(accepted) == 1
    assert names.stdout.strip() == "['lo']"


def test_fork_bomb_is_bounded_and_dies(box: Sandbox):
    code = """
import os, time
made = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
        made += 1
except OSError:
    print(made, flush=True)
time.sleep(60)
"""
    outcome = box.run(code, timeout=2, processes=12)
    assert outcome.status == "timeout"
    assert 0 < int(outcome.stdout) < 12
    assert outcome.seconds < 6


def test_nothing_outlives_it(box: Sandbox):
    """A daemon (two forks, its own session, signals ignored) is gone when the program has ended."""
    mark = f"outlives-{os.getpid()}-{time.time_ns()}"
    code = f"""
import os, signal, time
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if os.fork() == 0:
        os.execv("/bin/bash", ["{mark}", "-c", "while true; do read -t 1 x < /dev/zero; done"])
    os._exit(0)
time.sleep(0.3)
print("started")
"""
    assert box.run(code).stdout == "started\n"
    assert _until(lambda: not _running(mark), seconds=5)  # its namespace is torn down as the last process of it goes


def test_it_dies_with_the_process_that_started_it(box: Sandbox):
    """SIGKILL to whoever runs the sandbox leaves nothing behind, not even what ignores other signals."""
    mark = f"orphan-{os.getpid()}-{time.time_ns()}"
    inside = f"""
import os
os.execv("/bin/bash", ["{mark}", "-c", "trap '' TERM HUP; while true; do read -t 1 x < /dev/zero; done"])
"""
    script = f"from midtrain_dagster.sandbox import Sandbox; Sandbox({box.isolation!r}).run({inside!r}, timeout=60)"
    parent = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        assert _until(lambda: _running(f"{mark}\0-c"), seconds=30)
    finally:
        parent.kill()
        parent.wait()
    assert _until(lambda: not _running(f"{mark}\0-c"), seconds=10), "it outlived its parent"


def _until(true: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (found := bool(true())) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def _running(mark: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            pass
    return found


def test_disk_is_limited(box: Sandbox):
    code = """
written = 0
try:
    for n in range(100):
        with open(f"/tmp/{n}", "wb") as file:
            file.write(bytes(1 << 20))
        written += 1
except OSError:
    pass
print(written)
"""
    assert 5 <= int(box.run(code, disk_mb=8).stdout) <= 8
    big = box.run("open('/tmp/x', 'wb').write(bytes(9 << 20))", file_mb=4, disk_mb=64)
    assert big.status == "failed"
    flood = box.run("while True: print('x' * 10000)", file_mb=2, timeout=5)
    assert flood.status == "failed"
    assert len(flood.stdout) <= sandbox.OUTPUT_BYTES


def test_cannot_write_outside(box: Sandbox):
    code = """
import os
for path in "/x /usr/x /python/x /program/x /program/main.py /inside.py /dev/../x /proc/sys/kernel/hostname".split():
    try:
        open(path, "w").write("x")
        print("wrote", path)
    except OSError:
        print("no")
"""
    assert "wrote" not in box.run(code).stdout


def test_nothing_but_tmp_takes_files(box: Sandbox):
    """Neither /dev/shm nor any other place that a memory file system might stand at, whose size would be no limit."""
    code = """
import os
for path in "/dev/shm /dev /dev/pts /dev/mqueue /run /var/tmp /etc /".split():
    try:
        with open(f"{path}/x", "wb") as file:
            file.write(bytes(1 << 20))
        print("wrote", path)
    except OSError:
        print("no")
"""
    assert "wrote" not in box.run(code).stdout


def test_other_processes_cannot_be_seen_or_signalled(box: Sandbox):
    code = f"""
import os
print(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
for target in ({os.getpid()}, {os.getppid()}):
    try:
        os.kill(target, 0)
        print("signalled", target)
    except OSError:
        print("no")
"""
    output = box.run(code).stdout
    assert "signalled" not in output
    assert max(ast.literal_eval(output.splitlines()[0])) < 100


def test_no_memory_beside_the_limit_and_no_new_namespaces(box: Sandbox):
    """Files in memory and shared segments are not counted by RLIMIT_AS; in a new user namespace it would be root."""
    code = """
import ctypes, os, subprocess, sys, threading
library = ctypes.CDLL(None, use_errno=True)
try:
    os.memfd_create("x")
    print("memfd")
except OSError:
    print("no")
print("segment" if library.shmget(0, 1 << 20, 0o1600) >= 0 else "no")
print("namespace" if library.unshare(0x10000000) == 0 else "no")
print("clone" if library.syscall(56 if os.uname().machine == "x86_64" else 220, 0x10000011, 0, 0, 0, 0) >= 0 else "no")
print("mounted" if library.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0 else "no")
thread = threading.Thread(target=print, args=("threads",))
thread.start()
thread.join()
print(subprocess.run(["/bin/echo", "children"], capture_output=True, text=True).stdout.strip())
"""
    assert box.run(code).stdout.split() == [*["no"] * 5, "threads", "children"]
    assert box.run("unshare -U true && echo namespace || echo no", language="bash").stdout.strip() == "no"


def test_memory_and_time_are_limited(box: Sandbox):
    assert box.run("x = 'a' * 10**10").status == "memory"
    assert box.run("x = bytearray(200 << 20); print(len(x))", memory_mb=128).status == "memory"
    assert box.run("x = bytearray(100 << 20); print('fits')", memory_mb=256).stdout == "fits\n"
    slow = box.run("import time; time.sleep(30)", timeout=1)
    assert slow.status == "timeout"
    assert slow.seconds < 4
    assert box.run("while True: pass", timeout=1).status == "timeout"


def test_limits_cannot_be_raised(box: Sandbox):
    code = """
import os, resource
for name in ("RLIMIT_AS", "RLIMIT_NPROC", "RLIMIT_FSIZE"):
    try:
        resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY,) * 2)
        print("raised", name)
    except (ValueError, OSError):
        print("no")
try:
    os.setuid(0)
    powers = [line for line in open("/proc/self/status") if line.startswith("CapEff")][0].split()[1]
    print("root" if int(powers, 16) else "powerless")
except OSError:
    print("no")
"""
    output = box.run(code).stdout
    assert "raised" not in output
    assert "root" not in output


def test_find_refuses_where_nothing_isolates(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox, "_try", lambda isolation: "not here")
    with pytest.raises(MidtrainError, match="generated code is not run"):
        Sandbox.find()
    open_box = Sandbox.find(allow_unisolated=True)
    assert open_box.isolation == "none"
    assert open_box.run("import helper", files={"helper.py": "print(1)"}).stdout == "1\n"
    assert open_box.run("x = 'a' * 10**10").status == "memory"


def test_find_works_here():
    """Where this fails, synthesis cannot verify and evaluation cannot score code on this machine."""
    try:
        found = Sandbox.find()
    except MidtrainError as error:
        pytest.skip(f"NOT CHECKED: {error}")
    assert found.isolation in ("bubblewrap", "namespaces")
