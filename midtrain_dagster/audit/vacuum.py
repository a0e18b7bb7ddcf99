"""Retention: which table versions and artifacts may go, so that disk stays in bounds and every checkpoint can still be traced."""

import shutil
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from midtrain_dagster.artifacts import Artifact, Artifacts
from midtrain_dagster.staging import LEFT
from midtrain_dagster.store import Store
from midtrain_dagster.tables import Tables

FOREVER = ("midtrained_checkpoint",)  # what an audit is asked about; removed by people alone
DAY = 86_400.0


class Plan(NamedTuple):
    """What a vacuum would remove."""

    files: dict[str, list[str]]  # table → data files that no kept version needs
    strays: dict[str, list[str]]  # table → data files that no version ever had: a run was killed before its commit
    artifacts: list[tuple[str, str]]  # name, fingerprint
    left: list[Path]  # directories that killed runs left
    kept_versions: dict[str, list[int]]
    bytes: int  # of all that, here and in the store of artifacts


def plan(tables: Tables, artifacts: Artifacts, names: Iterable[str], days: float, now: float | None = None) -> Plan:
    """What may go. Kept are: the newest version of each table and every version younger than `days`; what a newest record
    has read (the next refresh compares with it); artifacts that are current or young; every checkpoint; and whatever any of
    these was made from, table versions and artifacts, down to the sources.
    """
    now = time.time() if now is None else now
    before, old = now - days * DAY, now - max(days, 1.0) * DAY  # old: no run that is going on has written it
    every = [(n, a) for n in artifacts.names() for f in artifacts.fingerprints(n) if (a := artifacts.recorded(n, f))]
    kept = {artifact.path for name, artifact in every if _stays(artifacts, name, artifact, before)}
    needed: dict[str, set[int]] = {}
    for _, artifact in every:
        if artifact.path in kept:
            _down(artifact, tables, artifacts, kept, needed)
    present = [name for name in names if tables.exists(name)]
    for name in present:
        _newest(tables, name, needed, before)
    files = {name: _unneeded(tables, name, needed[name]) for name in present}
    strays = {name: _strays(tables, name, old) for name in present}
    gone = [(name, artifact.fingerprint) for name, artifact in every if artifact.path not in kept]
    left = _abandoned(artifacts, tables, old)
    named = [file for found in (*files.values(), *strays.values()) for file in found]
    local = [Path(file) for file in named] + [artifacts.root.joinpath(*one) for one in gone] + left
    size = sum(map(_size, local)) + _stored(artifacts, gone)
    return Plan(files, strays, gone, left, {name: sorted(needed[name]) for name in present}, size)


def carry_out(tables: Tables, artifacts: Artifacts, found: Plan) -> None:
    """Remove what a plan names."""
    for name, fingerprint in found.artifacts:
        artifacts.remove(name, fingerprint)
    for path in found.left:
        shutil.rmtree(path, ignore_errors=True)
    for name, files in found.strays.items():
        for file in files:
            _remove(tables, name, file)
    for name, files in found.files.items():
        if files:
            tables.open(name).vacuum(
                retention_hours=0,
                dry_run=False,
                enforce_retention_duration=False,
                full=False,
                keep_versions=found.kept_versions[name],
            )


def _stays(artifacts: Artifacts, name: str, artifact: Artifact, before: float) -> bool:
    if name.split("/")[0] in FOREVER or datetime.fromisoformat(artifact.made["at"]).timestamp() >= before:
        return True
    return artifacts.newest(name) in (None, artifact.fingerprint)  # None: nothing says which one is current


def _down(artifact: Artifact, tables: Tables, artifacts: Artifacts, kept: set[Path], needed: dict[str, set[int]]) -> None:
    """Mark what an artifact was made from."""
    kept.add(artifact.path)
    for name, version in artifact.inputs.items():
        if isinstance(version, int):
            _version(tables, name, version, needed)
        elif (found := artifacts.recorded(name, version)) is not None and (
            found.path not in kept or artifact.path != found.path
        ):
            _down(found, tables, artifacts, kept, needed)


def _version(tables: Tables, name: str, version: int, needed: dict[str, set[int]]) -> None:
    """Mark a version of a table, and the versions that it was made from."""
    if version in needed.setdefault(name, set()) or not tables.exists(name):
        return
    needed[name].add(version)
    for record in tables.records(name, version):
        for read, at in record.reads.items():
            _version(tables, read, at, needed)


def _newest(tables: Tables, name: str, needed: dict[str, set[int]], after: float) -> None:
    _version(tables, name, tables.version(name), needed)
    for entry in tables.open(name).history():
        if entry["timestamp"] / 1000 >= after:
            _version(tables, name, int(entry["version"]), needed)


def _unneeded(tables: Tables, name: str, versions: set[int]) -> list[str]:
    table = tables.open(name)
    found = table.vacuum(
        retention_hours=0, dry_run=True, enforce_retention_duration=False, full=False, keep_versions=sorted(versions)
    )
    named = sorted(f"{tables.uri(name)}/{file}" for file in found)  # the log names them long after they are gone
    return named if "://" in tables.root else [file for file in named if Path(file).exists()]


def _strays(tables: Tables, name: str, before: float) -> list[str]:
    """Data files that are old and that the log does not speak of."""
    table = tables.open(name)
    unused, once = (
        table.vacuum(retention_hours=0, dry_run=True, enforce_retention_duration=False, full=full) for full in (True, False)
    )
    found = sorted(f"{tables.uri(name)}/{file}" for file in set(unused) - set(once))
    return [file for file in found if _changed(tables, name, file) < before]


def _changed(tables: Tables, name: str, file: str) -> float:
    """When a data file was last written, in Unix seconds."""
    if "://" not in tables.root:
        return Path(file).stat().st_mtime
    return Store(tables.uri(name), tables.storage_options).changed(file.removeprefix(f"{tables.uri(name)}/"))


def _remove(tables: Tables, name: str, file: str) -> None:
    if "://" not in tables.root:
        Path(file).unlink(missing_ok=True)
    else:
        Store(tables.uri(name), tables.storage_options).remove(file.removeprefix(f"{tables.uri(name)}/"))


def _abandoned(artifacts: Artifacts, tables: Tables, before: float) -> list[Path]:
    """What killed runs left and nobody went on with."""
    staged = [] if "://" in tables.root else Path(tables.root).glob(f"{LEFT}*")
    left = [*artifacts.root.glob("**/.partial-*"), *artifacts.root.glob("**/.removed-*"), *staged]
    return sorted(path for path in left if path.is_dir() and path.stat().st_mtime < before)


def _stored(artifacts: Artifacts, gone: list[tuple[str, str]]) -> int:
    """Bytes that artifacts have in the store."""
    folders = {f"{name}/{fingerprint}" for name, fingerprint in gone}
    sizes = artifacts.store.sizes() if artifacts.store and gone else {}
    return sum(size for path, size in sizes.items() if any(path.startswith(f"{folder}/") for folder in folders))


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.exists() else 0


def told(found: Plan) -> dict[str, Any]:
    """A plan as JSON values."""
    return {
        "artifacts": [*("/".join(one) for one in found.artifacts), *map(str, found.left)],
        "files": {name: len(files) for name, files in found.files.items() if files},
        "strays": {name: len(files) for name, files in found.strays.items() if files},
        "bytes": found.bytes,
    }
