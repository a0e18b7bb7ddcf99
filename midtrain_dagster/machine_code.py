"""Where numba keeps the machine code of our kernels: a directory for each state of their sources.

Left to itself it keeps a function's machine code until the function's own file changes, though code of other files is compiled into
it. After an update it would go on running what those were before, under a code version that says otherwise.
"""

import os
from hashlib import blake2b
from pathlib import Path

KERNELS = ("clean", "decontaminate", "deduplicate", "mix")  # packages that have any
VARIABLE = "NUMBA_CACHE_DIR"
NAME = "midtrain-kernels-"


def keep(root: Path = Path(__file__).parent) -> Path:
    """Tell numba, which reads it when it is first used, and return the directory: one that the environment names, or ours.

    What a parent process told before the sources changed does not count.
    """
    told = Path(os.environ.get(VARIABLE, NAME))
    if not told.name.startswith(NAME):
        return told
    found = blake2b(digest_size=8)
    for stage in KERNELS:
        for file in sorted((root / stage).glob("*.py")):
            found.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    beside = root / "__pycache__"
    writable = os.access(beside if beside.exists() else root, os.W_OK)
    place = (beside if writable else Path.home() / ".cache") / f"{NAME}{found.hexdigest()}"
    os.environ[VARIABLE] = str(place)
    return place
