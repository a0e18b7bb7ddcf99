"""The lake: where a project keeps its tables, its artifacts and its caches."""

from functools import cached_property
from pathlib import Path

from midtrain_dagster.artifacts import Artifacts
from midtrain_dagster.ledger import Ledger
from midtrain_dagster.project.operations import Operations
from midtrain_dagster.store import Store
from midtrain_dagster.tables import Tables


class Lake:
    """Tables and artifacts under `storage`, which may be the URI of an object store; caches on the local disk.

    `storage` relative to `root`, the project file's directory. Nothing is created before something is written.
    """

    def __init__(
        self,
        root: Path,
        storage: str = ".midtrain/lake",
        options: dict[str, str] | None = None,
        operations: Operations | None = None,
    ):
        self.root = root.resolve()
        self.storage, self.options = storage, options
        self.operations = operations or Operations()

    @property
    def remote(self) -> bool:
        return "://" in self.storage

    @property
    def local(self) -> Path:
        """Directory for what trainers map into memory and what caches keep."""
        return self.root / (".midtrain/lake" if self.remote else self.storage)

    @cached_property
    def tables(self) -> Tables:
        if self.remote:
            return Tables(f"{self.storage.rstrip('/')}/tables", self.options, self.cache_path("tables"))
        return Tables(self.local / "tables")

    @cached_property
    def artifacts(self) -> Artifacts:
        kept = Store(f"{self.storage.rstrip('/')}/artifacts", self.options) if self.remote else None
        return Artifacts(self.local / "artifacts", kept)

    @cached_property
    def ledger(self) -> Ledger:
        """What everything cost."""
        return Ledger(self.local / "costs", self.operations.prices, self.operations.budget)

    @property
    def openlineage(self) -> str | None:
        """Endpoint of lineage events."""
        return self.operations.openlineage

    def cache_path(self, name: str) -> Path:
        """Where a cache is: a directory whose loss costs time and nothing else. It need not exist yet."""
        return self.local / "cache" / name
