"""Which reader reads which kind of source."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from midtrain_dagster.collect import (
    books,
    code,
    columns,
    common_crawl,
    crawl,
    docstrings,
    html,
    instruction,
    multimodal,
    package_metadata,
    places,
    repository,
    rows,
    stackexchange,
    text,
    warc,
    wikipedia,
)
from midtrain_dagster.collect.network import Network
from midtrain_dagster.collect.parallel import ordered_map
from midtrain_dagster.collect.records import Items, Record, Rejected
from midtrain_dagster.project.sources import (
    Code,
    CommonCrawl,
    Crawl,
    Docstrings,
    HuggingFace,
    PackageMetadata,
    Source,
    Warc,
)
from midtrain_dagster.shards import Engine

SUFFIXES: dict[str, tuple[str, ...]] = {
    "warc": warc.SUFFIXES,
    "wet": warc.SUFFIXES,
    "jsonl": rows.JSON_SUFFIXES,
    "parquet": rows.PARQUET_SUFFIXES,
    "arrow": rows.ARROW_SUFFIXES,
    "huggingface": rows.JSON_SUFFIXES + rows.PARQUET_SUFFIXES + rows.ARROW_SUFFIXES,
    "text": text.SUFFIXES,
    "books": (*text.SUFFIXES, ".epub", ".pdf"),
    "wikipedia": wikipedia.SUFFIXES,
    "stackexchange": stackexchange.SUFFIXES,
    "instruction": rows.JSON_SUFFIXES + rows.PARQUET_SUFFIXES + rows.ARROW_SUFFIXES,
    "multimodal": rows.JSON_SUFFIXES + rows.PARQUET_SUFFIXES + rows.ARROW_SUFFIXES + warc.SUFFIXES,
    "common_crawl": common_crawl.SUFFIXES,
    "epub": (".epub",),
    "pdf": (".pdf",),
}


DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # of a data set; no records


def paths(source: Source, root: Path) -> list[Path]:
    """The files behind a source, sorted; none for one on the network. Raises MidtrainError for a location that does not exist."""
    if isinstance(source, Code):
        directory = places.directory(source.location, root)
        return [path for path, _ in code.walk(directory, source) if path.is_file()]
    if isinstance(source, Docstrings):
        directory = places.directory(source.location, root)
        return [path for package in source.packages for path in docstrings.modules(directory, package)]
    if isinstance(source, PackageMetadata):
        return sorted(places.directory(source.location, root).glob("*.dist-info/METADATA"))
    if isinstance(source, Crawl) or source.location.startswith(("http://", "https://")):
        return []
    found = places.files(source.location, root, SUFFIXES[source.kind])
    if isinstance(source, HuggingFace) and len(found) > 1:
        return [path for path in found if path.name not in DESCRIPTIONS]
    return found


def parts(source: Source, root: Path) -> dict[str, Path] | None:
    """The files of a source by name, in the order in which they are read, where each document stands in one of them alone.

    None where a source is to be read as a whole: it is on the network, its documents are made of several files, or only so many
    of them are wanted. Raises MidtrainError for a location that does not exist.
    """
    whole = source.kind not in FILES or source.limit is not None or source.location.startswith(("http://", "https://"))
    return None if whole else _named(source, root)


def _named(source: Source, root: Path) -> dict[str, Path]:
    base = places.base(source.location, root)
    return {places.relative(path, base): path for path in paths(source, root)}


def read(source: Source, root: Path, workers: int | Engine = 1) -> Items:
    """The records of a source and what could not become one, in a fixed order.

    Raises MidtrainError for a location that does not exist, and for an extractor that is not installed.
    """
    if isinstance(source, Crawl | CommonCrawl):
        html.installed(source.extractor)
        network = Network(source.agent, source.allow_private, source.seconds)
        fetched = crawl.pages(source, network) if isinstance(source, Crawl) else common_crawl.pages(source, root, network)
        return ordered_map(partial(page_record, extractor=source.extractor, fast=source.fast), fetched, workers, _size)
    if isinstance(source, Code):
        reader = repository.read if source.repository else code.read
        return reader(places.directory(source.location, root), source)
    if isinstance(source, Docstrings):
        return docstrings.read(places.directory(source.location, root), source.packages, source.max_record_bytes)
    if isinstance(source, PackageMetadata):
        return package_metadata.read(places.directory(source.location, root), source)
    return (item for _, item in read_parts(source, _named(source, root), workers))


def read_parts(source: Source, named: Mapping[str, Path], workers: int | Engine = 1) -> Iterator[tuple[str, Record | Rejected]]:
    """The records of some files of a source and what could not become one, file by file, each with its file's name."""
    found = _each(named, FILES[source.kind](source))
    if not isinstance(source, Warc):
        return found
    html.installed(source.extractor)
    return ordered_map(
        partial(_named_record, extractor=source.extractor, fast=source.fast), found, workers, lambda it: _size(it[1])
    )


def _each(named: Mapping[str, Path], reader: Callable[[Path, str], Iterator[Any]]) -> Iterator[tuple[str, Any]]:
    for name, path in named.items():
        if path.stat().st_size == 0:
            yield name, Rejected(name, "empty file")
        else:
            yield from ((name, item) for item in reader(path, name))


def _size(page: html.Page | Rejected) -> int:
    return 0 if isinstance(page, Rejected) else len(page.body)


def page_record(page: html.Page | Rejected, extractor: Any, fast: bool) -> Record | Rejected:
    """A page's main text as a record; its address is its name."""
    if isinstance(page, Rejected):
        return page
    found = html.extract(page, extractor, fast)
    if found.problem is not None:
        return Rejected(page.location, found.problem[0], f"{found.problem[1]} {page.url}"[:300])
    return Record(
        page.url,
        found.text,
        page.location,
        url=page.url,
        license=found.license,
        language=found.language,
        created=found.created,
        metadata={**page.metadata, **found.metadata},
    )


def _named_record(named: tuple[str, html.Page | Rejected], extractor: Any, fast: bool) -> tuple[str, Record | Rejected]:
    return named[0], page_record(named[1], extractor, fast)


def _warc(source: Any) -> Callable[[Path, str], Iterator[Any]]:
    return partial(warc.pages, limit=source.max_record_bytes)


def _wet(source: Any) -> Callable[[Path, str], Items]:
    return partial(warc.texts, limit=source.max_record_bytes)


def _table(source: Any) -> Callable[[Path, str], Items]:
    mapping = columns.mapping(source)
    return lambda path, name: columns.documents(rows.read(path, name, source.max_record_bytes), mapping)


def _text(source: Any) -> Callable[[Path, str], Items]:
    return lambda path, name: text.read([(path, name)], source.max_record_bytes, source.encoding)


def _books(source: Any) -> Callable[[Path, str], Items]:
    def read(path: Path, name: str) -> Items:
        if path.name.lower().endswith(".epub"):
            return books.epub(path, name, source.max_record_bytes)
        if path.name.lower().endswith(".pdf"):
            return books.pdf(path, name, source.max_record_bytes, source.max_pages)
        return text.read([(path, name)], source.max_record_bytes, source.encoding)

    return read


def _instruction(source: Any) -> Callable[[Path, str], Items]:
    return lambda path, name: instruction.documents(rows.read(path, name, source.max_record_bytes))


def _wikipedia(source: Any) -> Callable[[Path, str], Items]:
    return partial(wikipedia.read, limit=source.max_record_bytes, namespaces=source.namespaces)


def _stackexchange(source: Any) -> Callable[[Path, str], Items]:
    return partial(stackexchange.read, source=source)


def _multimodal(source: Any) -> Callable[[Path, str], Items]:
    return partial(multimodal.read, source=source)


def _epub(source: Any) -> Callable[[Path, str], Items]:
    return partial(books.epub, limit=source.max_record_bytes)


def _pdf(source: Any) -> Callable[[Path, str], Items]:
    return partial(books.pdf, limit=source.max_record_bytes, max_pages=source.max_pages)


FILES: dict[str, Callable[[Any], Callable[[Path, str], Iterator[Any]]]] = {  # of formats that are read file by file
    "warc": _warc,
    "wet": _wet,
    "jsonl": _table,
    "parquet": _table,
    "arrow": _table,
    "huggingface": _table,
    "text": _text,
    "books": _books,
    "instruction": _instruction,
    "wikipedia": _wikipedia,
    "stackexchange": _stackexchange,
    "multimodal": _multimodal,
    "epub": _epub,
    "pdf": _pdf,
}
