"""The first thing that runs inside: gives up what it may, sets the limits, then becomes the program. Standard library only.

Argument: one JSON object {"user": uid or null, "limits": {name of a RLIMIT_ constant: value}, "command": argv or null}.
Without a command, /program/main.py runs in this very interpreter, which saves a second start.
"""

import json
import os
import resource
import sys

OUT_OF_MEMORY = 97  # exit code


def main() -> None:
    """Set up, then run."""
    about = json.loads(sys.argv[1])
    if about["user"] is not None:
        os.setgroups([])
        os.setgid(about["user"])
        os.setuid(about["user"])
    for name, value in about["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
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


main()
