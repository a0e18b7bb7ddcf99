"""Files in an object store, by URI: what artifacts are kept in, and where tables are copied from and to.

`s3://bucket/path`, `gs://…`, `az://…`, or `file:///path`. Keys come from the client's own environment variables
(`AWS_ACCESS_KEY_ID`, …); other options are those that the tables' client takes, such as `AWS_ENDPOINT_URL`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.progress import Progress

OF_THE_CONNECTION = ("allow_http", "allow_invalid_certificates", "timeout", "connect_timeout", "proxy_url")


class Store:
    """The objects under one URI; paths are relative to it."""

    def __init__(self, uri: str, options: Mapping[str, str] | None = None):
        self.uri = uri.rstrip("/")
        self.options = dict(options or {})
        self._opened: Any = None

    @property
    def _store(self) -> Any:
        if self._opened is None:
            from obstore.exceptions import BaseError
            from obstore.store import from_url

            config: Any = {}
            connection: Any = {}
            for key, value in self.options.items():
                plain = key.lower().removeprefix("aws_")
                if plain in OF_THE_CONNECTION:
                    connection[plain] = value.lower() == "true" if value.lower() in ("true", "false") else value
                else:
                    config[key] = value
            try:
                if self.uri.startswith("file://"):
                    self._opened = from_url(self.uri, mkdir=True)
                else:
                    self._opened = from_url(self.uri, config=config or None, client_options=connection or None)
            except (BaseError, ValueError) as error:
                raise MidtrainError(f"storage {self.uri}: cannot be opened: {' '.join(str(error).split())[:300]}") from None
        return self._opened

    def read(self, path: str) -> bytes | None:
        """An object's bytes, or None where there is none."""
        import obstore

        try:
            return bytes(obstore.get(self._store, path).bytes())
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes) -> None:
        import obstore

        obstore.put(self._store, path, data)

    def remove(self, path: str) -> None:
        """Remove an object; nothing where there is none."""
        import obstore

        try:
            obstore.delete(self._store, path)
        except FileNotFoundError:
            return

    def upload(self, file: Path, path: str) -> None:
        """Copy a local file there, in parts where it is large."""
        import obstore

        obstore.put(self._store, path, file)

    def download(self, path: str, file: Path) -> None:
        """Copy an object to a local file, which appears when it is complete."""
        import os

        import obstore

        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        with partial.open("wb") as out:
            for part in obstore.get(self._store, path).stream():
                out.write(part)
        partial.replace(file)

    def files(self, prefix: str = "") -> Iterator[str]:
        """Paths of all objects under a prefix (a folder), sorted."""
        import obstore

        yield from sorted(meta["path"] for batch in obstore.list(self._store, prefix=prefix or None) for meta in batch)

    def sizes(self) -> dict[str, int]:
        """Bytes of every object, by path."""
        import obstore

        return {meta["path"]: int(meta["size"]) for batch in obstore.list(self._store) for meta in batch}

    def changed(self, path: str) -> float:
        """When an object was last written, in Unix seconds."""
        import obstore

        return float(obstore.head(self._store, path)["last_modified"].timestamp())

    def folders(self, prefix: str) -> list[str]:
        """Names directly under a folder that hold further objects, sorted."""
        import obstore

        found = obstore.list_with_delimiter(self._store, prefix=prefix)["common_prefixes"]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)


def copied(root: Path, to: Store, folders: tuple[str, ...], progress: Progress) -> tuple[int, int]:
    """Copy folders of a directory into a store: data first, then what says that it is there (logs, records, pointers).

    Files that are there with the same size are left alone. Returns how many files were copied, and their bytes.
    """
    there = to.sizes()
    files = sorted(p for name in folders for p in (root / name).rglob("*") if p.is_file() and _lasts(p.relative_to(root)))
    count = total = 0
    for path in sorted(files, key=lambda p: (p.name == "current", p.name == "artifact.json", "_delta_log" in p.parts)):
        where, size = path.relative_to(root).as_posix(), path.stat().st_size
        if there.get(where) != size or path.name == "current":
            to.upload(path, where)
            count, total = count + 1, total + size
        progress.advance(1)
    return count, total


def _lasts(path: Path) -> bool:
    """Not what an unfinished run left: half-made artifacts and tables, locks, temporary files."""
    unfinished = any(part.startswith((".partial-", ".lock-", ".fetched-", ".current-")) for part in path.parts)
    return not unfinished and not path.name.endswith(".tmp")
