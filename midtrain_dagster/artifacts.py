"""What is not a table: packed sequences, checkpoints, evaluations, reports. A directory each, named by its fingerprint.

`<root>/<name>/<fingerprint>/` is complete once it has that name; until then it is `.partial-<fingerprint>`, which a killed
run leaves behind and the next one goes on with. `<root>/<name>/current` names the newest.
"""

import json
import os
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from midtrain_dagster.errors import MidtrainError

RECORD = "artifact.json"


class Artifact(NamedTuple):
    """A finished directory and how it came about."""

    path: Path
    fingerprint: str
    digest: str  # of the content: the data version
    about: dict[str, Any]  # counts, metrics
    inputs: dict[str, str | int]  # artifact → fingerprint, table → version
    files: str  # digest of every byte below the directory, to verify it by


class Artifacts:
    """Artifacts under one local directory."""

    def __init__(self, root: Path):
        self.root = root

    def get(self, name: str, fingerprint: str) -> Artifact | None:
        """The artifact with this fingerprint, or None."""
        path = self.root / name / fingerprint
        record = path / RECORD
        if not record.exists():
            return None
        values = json.loads(record.read_text())
        return Artifact(path, fingerprint, values["digest"], values["about"], values["inputs"], values["files"])

    def current(self, name: str) -> Artifact:
        """The newest artifact of a name; MidtrainError where there is none."""
        pointer = self.root / name / "current"
        found = self.get(name, pointer.read_text().strip()) if pointer.exists() else None
        if found is None:
            raise MidtrainError(f"{name} has not been made yet in {self.root}; materialize its asset first")
        return found

    def all(self, name: str) -> list[Artifact]:
        """Every finished artifact of a name, sorted by fingerprint."""
        folder = self.root / name
        found = (self.get(name, p.name) for p in sorted(folder.iterdir()) if p.is_dir()) if folder.is_dir() else ()
        return [artifact for artifact in found if artifact is not None]

    def build(
        self,
        name: str,
        fingerprint: str,
        make: Callable[[Path], tuple[str, dict[str, Any]]],
        inputs: Mapping[str, str | int],
    ) -> tuple[Artifact, bool]:
        """The artifact, made if it is not there; and whether it had to be made.

        `make` gets the partial directory (with what a killed run left in it) and returns the content's digest and whatever
        is to be remembered. `inputs` are what it is made from: artifacts by fingerprint, tables by version. The directory
        gets its name in one rename.
        """
        found = self.get(name, fingerprint)
        made = found is None
        if found is None:
            folder = self.root / name
            partial = folder / f".partial-{fingerprint}"
            partial.mkdir(parents=True, exist_ok=True)
            digest, about = make(partial)
            record = {"digest": digest, "about": about, "inputs": dict(inputs), "files": content_digest(partial)}
            (partial / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True))
            os.replace(partial, folder / fingerprint)
            found = self.get(name, fingerprint)
            assert found is not None
        self._point(name, fingerprint)
        return found, made

    def _point(self, name: str, fingerprint: str) -> None:
        pointer = self.root / name / "current"
        if not pointer.exists() or pointer.read_text() != fingerprint:
            new = pointer.with_name(f".current-{fingerprint}")
            new.write_text(fingerprint)
            os.replace(new, pointer)


def content_digest(folder: Path) -> str:
    """Digest of all files below a folder but its record, names included, 32 hex digits."""
    total = blake2b(digest_size=16)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / RECORD):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                total.update(block)
    return total.hexdigest()
