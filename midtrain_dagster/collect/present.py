"""What there is of a source now, taken apart as far as it can be: into its snapshots, or its files."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from midtrain_dagster import snapshots as dated
from midtrain_dagster.collect.collect import collect, collect_parts, fingerprint, mark
from midtrain_dagster.collect.formats import parts
from midtrain_dagster.documents import Batch
from midtrain_dagster.parts import Outside
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.sources import Source
from midtrain_dagster.seen import Holders
from midtrain_dagster.shards import Engine


def present(
    source: Source,
    root: Path,
    collected: datetime | None = None,
    progress: Progress | None = None,
    workers: int | Engine = 1,
    chosen: Sequence[str] | None = None,
) -> Outside:
    """What to bring the lake up to date with. `chosen`: snapshots, of a source that has them. The rest is as for `collect`.

    Raises MidtrainError for a location that does not exist.
    """
    if chosen is not None:
        each = {name: source.model_copy(update={"location": dated.at(source.location, name)}) for name in chosen}

        def snapshots(names: Sequence[str], holders: Holders) -> Iterable[Batch]:
            return dated.read(names, holders, lambda name: collect(each[name], root, collected, progress, workers))

        return Outside("snapshots", {name: fingerprint(one, root) for name, one in each.items()}, snapshots)

    named = parts(source, root)
    if named is None:

        def whole(names: Sequence[str], holders: Holders) -> Iterable[Batch]:
            return collect(source, root, collected, progress, workers)

        return Outside("whole", {source.name: fingerprint(source, root)}, whole)

    def files(names: Sequence[str], holders: Holders) -> Iterable[Batch]:
        return collect_parts(source, {name: named[name] for name in names}, holders, collected, progress, workers)

    return Outside("files", {name: mark(path) for name, path in named.items()}, files)
