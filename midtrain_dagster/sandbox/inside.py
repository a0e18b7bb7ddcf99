"""The first thing that runs inside: gives up what it may, sets the limits, then becomes the program. Standard library only.

Argument: one JSON object {"user": uid or null, "limits": {name of a RLIMIT_ constant: value}, "filter": bool,
"command": argv or null}.
Without a command, /program/main.py runs in this very interpreter, which saves a second start.
"""

import ctypes
import errno
import json
import os
import resource
import struct
import sys

OUT_OF_MEMORY = 97  # exit code

# System calls that are refused, by machine: memory that no limit counts (memfd_create, memfd_secret, shmget), new
# namespaces in which one would be root (unshare, setns, mount), and what has let programs out before or is of no use here
# (ptrace, bpf, userfaultfd, io_uring_setup, perf_event_open, keyctl, add_key, request_key). clone is refused new namespaces; clone3, whose
# arguments a filter cannot read, is said not to exist, so that the C library takes clone.
MACHINES = {
    "x86_64": (0xC000003E, 56, (319, 447, 29, 272, 308, 165, 101, 321, 323, 425, 298, 250, 248, 249)),
    "aarch64": (0xC00000B7, 220, (279, 447, 194, 97, 268, 40, 117, 280, 282, 425, 241, 219, 217, 218)),
}
CLONE3 = 435
NEW_NAMESPACES = 0x7E020080  # CLONE_NEWUSER, NEWPID, NEWNET, NEWNS, NEWUTS, NEWIPC, NEWCGROUP, NEWTIME
LOAD, EQUAL, ANY_BIT, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06  # classic BPF
ALLOW, ERROR = 0x7FFF0000, 0x00050000


def main() -> None:
    """Set up, then run."""
    about = json.loads(sys.argv[1])
    if about["user"] is not None:
        os.setgroups([])
        os.setgid(about["user"])
        os.setuid(about["user"])
    for name, value in about["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if about["filter"]:
        refuse_calls()
    if about["command"]:
        os.execv(about["command"][0], about["command"])
    path = "/program/main.py"
    sys.argv[:] = [path]
    sys.path.insert(0, "/program")
    with open(path, encoding="utf-8") as file:
        source = file.read()
    try:
        exec(compile(source, path, "exec"), {"__name__": "__main__", "__file__": path})
    except MemoryError:
        sys.stderr.write("MemoryError\n")
        sys.stderr.flush()
        os._exit(OUT_OF_MEMORY)


def refuse_calls() -> None:
    """Have the kernel refuse some system calls from here on, to this process and to all that come of it.

    Raises OSError where the kernel cannot, and KeyError on a machine whose calls are not listed.
    """
    architecture, clone, refused = MACHINES[os.uname().machine]
    tests = [(EQUAL, number, ERROR | errno.EPERM) for number in refused] + [(EQUAL, CLONE3, ERROR | errno.ENOSYS)]
    program = [
        (LOAD, 0, 0, 4),  # the architecture: a call by another one's numbers is refused
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, ERROR | errno.EPERM),
        (LOAD, 0, 0, 0),  # the number of the call
        (AT_LEAST, 0, 1, 0x40000000),  # the x32 numbers of x86
        (RETURN, 0, 0, ERROR | errno.EPERM),
    ]
    for test, number, answer in tests:
        program += [(test, 0, 1, number), (RETURN, 0, 0, answer)]
    program += [
        (EQUAL, 1, 0, clone),
        (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, 16),  # its flags
        (ANY_BIT, 0, 1, NEW_NAMESPACES),
        (RETURN, 0, 0, ERROR | errno.EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    about = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    library = ctypes.CDLL(None, use_errno=True)
    set_no_new_privileges, set_seccomp, filtered = 38, 22, 2
    if library.prctl(set_no_new_privileges, 1, 0, 0, 0) or library.prctl(set_seccomp, filtered, about, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


main()
