"""Prompts are the plain files beside this one: a `#` header that names the paper and is not sent, then the text.

`{name}` is a place to fill; a line of `---` parts the turns of a worked example.
"""

import re
from functools import cache
from hashlib import blake2b
from importlib.resources import files

PLACE = re.compile(r"\{([a-z_]+)\}")


@cache
def prompt(name: str) -> str:
    """The text of `NAME.txt` as it is sent, places unfilled."""
    lines = (files(__package__) / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("# ")).strip()


def fill(name: str, **values: object) -> str:
    """The text of `NAME.txt` with its places filled, in one pass: braces in a value stay as they are.

    Raises KeyError for a place without a value.
    """
    return PLACE.sub(lambda place: str(values[place[1]]), prompt(name))


def prompt_hash(name: str) -> str:
    """Hash of what is sent, 16 hex digits: a changed header changes nothing."""
    return blake2b(prompt(name).encode(), digest_size=8).hexdigest()
