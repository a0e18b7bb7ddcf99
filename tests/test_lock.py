"""Pinned with hashes: the lock file covers the constraints and what the project asks for."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, str]:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    found = [re.fullmatch(r"([a-z0-9-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if match is None]
    return {match[1]: match[2] for match in found if match}


def test_the_lock_agrees_with_the_constraints() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line and line[0] != "(")
    lock = locked()
    # A build's own mark (`2.13.0+cpu`) is not part of the pin.
    assert {name: pin for name, pin in pins.items() if lock.get(plain(name), pin).partition("+")[0] != pin} == {}


def test_every_dependency_is_locked_in_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(text) for text in [*project["dependencies"], *extras["demo"], *extras["archives"], *extras["dev"]]]
    lock = locked()
    wrong = [str(need) for need in wanted if plain(need.name) not in lock or lock[plain(need.name)] not in need.specifier]
    assert wrong == []
