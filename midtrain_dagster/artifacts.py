"""What is not a table: packed sequences, checkpoints, evaluations, reports. A directory each, named by its fingerprint.

`<root>/<name>/<fingerprint>/` is complete once it has that name; until then it is `.partial-<fingerprint>`, which a killed
run leaves behind and the next one goes on with. `<root>/<name>/current` names the newest.

With an object store behind it, the directory is what is worked in and a cache: what is made is copied to the store, its record
last; what another machine made is fetched when it is asked for.
"""

import errno
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.locks import alone
from midtrain_dagster.store import Store

RECORD = "artifact.json"
PACKAGES = ("midtrain-dagster", "torch", "transformers", "tokenizers", "lm-eval", "numpy", "polars", "duckdb", "deltalake")
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}


class Artifact(NamedTuple):
    """A finished directory and how it came about."""

    path: Path
    fingerprint: str
    digest: str  # of the content: the data version
    about: dict[str, Any]  # counts, metrics
    inputs: dict[str, str | int]  # artifact → fingerprint, table → version
    files: str  # digest of every byte below the directory, to verify it by
    made: dict[str, Any]  # when, by which commit of this project and which packages


class Artifacts:
    """Artifacts under one local directory, and in an object store where there is one."""

    def __init__(self, root: Path, store: Store | None = None):
        self.root, self.store = root, store

    def get(self, name: str, fingerprint: str) -> Artifact | None:
        """The artifact with this fingerprint, or None."""
        if not (self.root / name / fingerprint / RECORD).exists() and not self._fetched(name, fingerprint):
            return None
        return self.recorded(name, fingerprint)

    def recorded(self, name: str, fingerprint: str) -> Artifact | None:
        """What the record of an artifact says, or None where there is no such artifact. Its files are not fetched: `path` is
        where they would be."""
        path = self.root / name / fingerprint
        record = path / RECORD
        if record.exists():
            said: str | bytes | None = record.read_text()
        else:
            said = self.store.read(f"{name}/{fingerprint}/{RECORD}") if self.store else None
        if said is None:
            return None
        try:
            values = json.loads(said)
        except ValueError:
            raise MidtrainError(f"{record} is damaged; remove {path} and run again") from None
        return Artifact(
            path, fingerprint, values["digest"], values["about"], values["inputs"], values["files"], values.get("made", {})
        )

    def current(self, name: str) -> Artifact:
        """The newest artifact of a name; MidtrainError where there is none."""
        newest = self.newest(name)
        found = self.get(name, newest) if newest else None
        if found is None:
            raise MidtrainError(f"{name} has not been made yet in {self.root}; materialize its asset first")
        return found

    def newest(self, name: str) -> str | None:
        """Fingerprint of the newest artifact of a name, or None."""
        kept = self.store.read(f"{name}/current") if self.store else None
        if kept is not None:
            return kept.decode().strip()
        pointer = self.root / name / "current"
        return pointer.read_text().strip() if pointer.exists() else None

    def all(self, name: str) -> list[Artifact]:
        """Every finished artifact of a name, sorted by fingerprint."""
        found = (self.get(name, fingerprint) for fingerprint in self.fingerprints(name))
        return [artifact for artifact in found if artifact is not None]

    def fingerprints(self, name: str) -> list[str]:
        """Under which there is something of a name, here or in the store, finished or not; sorted."""
        folder = self.root / name
        here = {p.name for p in folder.iterdir() if p.is_dir()} if folder.is_dir() else set()
        return sorted(here | (set(self.store.folders(name)) if self.store else set()))

    def names(self) -> list[str]:
        """Names under which there are finished artifacts, here or in the store, as `mixture/demo`; sorted."""
        here = {path.parent.parent.relative_to(self.root).as_posix() for path in self.root.glob(f"**/{RECORD}")}
        there = {path.rsplit("/", 2)[0] for path in self.store.files() if path.endswith(f"/{RECORD}")} if self.store else set()
        return sorted(here | there)

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
        folder = self.root / name
        found, made = self.get(name, fingerprint), False
        if found is None:
            with _told(name, folder), alone(folder / f".lock-{fingerprint}", name):
                found = self.get(name, fingerprint)  # another run may have made it meanwhile
                if made := found is None:
                    found = self._make(name, fingerprint, make, inputs)
        with _told(name, folder):
            self._send(name, fingerprint)
            self._point(name, fingerprint)
        assert found is not None
        return found, made

    def _make(
        self,
        name: str,
        fingerprint: str,
        make: Callable[[Path], tuple[str, dict[str, Any]]],
        inputs: Mapping[str, str | int],
    ) -> Artifact | None:
        folder = self.root / name
        partial = folder / f".partial-{fingerprint}"
        partial.mkdir(parents=True, exist_ok=True)
        digest, about = make(partial)
        record = {"digest": digest, "about": about, "inputs": dict(inputs), "files": content_digest(partial)}
        record["made"] = circumstances()
        (partial / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True))
        os.replace(partial, folder / fingerprint)
        (folder / f".lock-{fingerprint}").unlink(missing_ok=True)
        return self.get(name, fingerprint)

    def _send(self, name: str, fingerprint: str) -> None:
        """Copy to the store what is not there yet, the record last: it says that all is there."""
        if self.store is None or self.store.read(f"{name}/{fingerprint}/{RECORD}") is not None:
            return
        folder = self.root / name / fingerprint
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        for path in sorted(files, key=lambda p: p == folder / RECORD):
            self.store.upload(path, f"{name}/{fingerprint}/{path.relative_to(folder).as_posix()}")

    def _fetched(self, name: str, fingerprint: str) -> bool:
        """Whether the artifact was in the store, and so is here now."""
        if self.store is None or self.store.read(f"{name}/{fingerprint}/{RECORD}") is None:
            return False
        folder, partial = self.root / name / fingerprint, self.root / name / f".fetched-{fingerprint}-{os.getpid()}"
        with _told(name, folder):
            for path in self.store.files(f"{name}/{fingerprint}"):
                self.store.download(path, partial / path.removeprefix(f"{name}/{fingerprint}/"))
            try:
                os.replace(partial, folder)
            except OSError:
                if not (folder / RECORD).exists():
                    raise
                shutil.rmtree(partial)  # another process was quicker
        return True

    def remove(self, name: str, fingerprint: str) -> None:
        """Remove an artifact, here and in the store. What says that it is there goes first, so that none is ever half there."""
        if self.store is not None:
            there = f"{name}/{fingerprint}"
            for file in sorted(self.store.files(there), key=lambda file: file != f"{there}/{RECORD}"):
                self.store.remove(file)
        path, doomed = self.root / name / fingerprint, self.root / name / f".removed-{fingerprint}"
        if path.exists():
            path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def mark(self, name: str, fingerprint: str, word: str, values: Any) -> Path:
        """Say something of an artifact that became known later, beside its directory: what is in it stays as it was made."""
        file = self.root / name / f"{fingerprint}.{word}.json"
        new = file.with_name(f".{file.name}")
        new.write_text(json.dumps(values, indent=2, sort_keys=True, default=str))
        os.replace(new, file)
        return file

    def _point(self, name: str, fingerprint: str) -> None:
        pointer = self.root / name / "current"
        if not pointer.exists() or pointer.read_text() != fingerprint:
            new = pointer.with_name(f".current-{os.getpid()}")
            new.write_text(fingerprint)
            os.replace(new, pointer)
        if self.store is not None and self.store.read(f"{name}/current") != fingerprint.encode():
            self.store.write(f"{name}/current", fingerprint.encode())


@contextmanager
def _told(name: str, folder: Path) -> Iterator[None]:
    """A disk that is full or may not be written to is said in words; what is half made stays and is gone on with."""
    try:
        yield
    except Exception as error:
        # Libraries in Rust tell the number in the text alone, some of them in a plain Exception.
        told = re.search(r"\(os error (\d+)\)", str(error))
        if getattr(error, "errno", None) in NO_ROOM or (told and int(told[1]) in NO_ROOM) or "No space left" in str(error):
            said = " ".join(str(error).split())[:300]
            raise MidtrainError(
                f"{name}: cannot be written in {folder}: {said}; see to room and permissions there, then run again"
            ) from None
        raise


def circumstances() -> dict[str, Any]:
    """When something was made, and with what: the commit of this project where it is a checkout, and versions of packages."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"at": now, "python": platform.python_version(), "commit": commit(), "packages": versions()}


@cache
def commit() -> str | None:
    """The git commit of the checkout that this code is in, with `+changes` where files differ from it; None elsewhere."""
    here = Path(__file__).parents[1]
    if not (here / ".git").exists():
        return None
    try:
        said = [
            subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, timeout=20, check=True).stdout
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return said[0].strip() + ("+changes" if said[1].strip() else "")


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that results depend on most."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def content_digest(folder: Path) -> str:
    """Digest of all files below a folder but its record, names included, 32 hex digits."""
    total = blake2b(digest_size=16)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / RECORD):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                total.update(block)
    return total.hexdigest()
