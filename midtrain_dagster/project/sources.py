"""The sources of a project: where documents come from, one settings class a format."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.settings import Settings


class AnySource(Settings):
    """What every source says, whatever its format."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name of the source: lower case, digits, underscores.")
    location: str = Field(
        description="File, directory, glob or URL; relative to the project file. `~`, `{site-packages}` and `{stdlib}` "
        "expand to the home directory and to the running interpreter's paths."
    )
    domain: str = Field(
        "web", min_length=1, description="Subject that shares and scores are counted by: web, code, math, prose, …"
    )
    format: str = Field("text", min_length=1, description="Shape of the text: text, qa, instruction, conversation, code, …")
    license: str | None = Field(None, description="SPDX licence of documents that name none themselves.")
    language: str | None = Field(None, description="ISO 639-1 language of documents that name none themselves.")
    limit: int | None = Field(None, ge=1, description="Most documents to keep; none: all.")
    max_record_bytes: int = Field(16 << 20, ge=1024, description="Largest record, decompressed; larger ones are rejected.")


class Columns(Settings):
    """Which key of a record means what; a dot goes into nested records (`meta.url`). Keys named nowhere go to `metadata`.

    A column that is not set here is looked for under the names that are common for it (`collect.columns.COMMON`).
    """

    text: str = Field("text", description="The text; a record without it is rejected. Where none is named: text, content, …")
    id: str | None = Field("id", description="The record's own id; where it has none, file and line take its place.")
    url: str | None = Field("url", description="The web address.")
    license: str | None = Field("license", description="The record's licence.")
    language: str | None = Field("language", description="The record's language.")
    created: str | None = Field("created", description="When it was written: ISO 8601 or seconds since 1970.")


class Warc(AnySource):
    """Common Crawl WARC files (.warc, .warc.gz, .warc.zst): the main text of HTML responses."""

    kind: Literal["warc"] = "warc"
    extractor: Literal["trafilatura", "resiliparse"] = Field(
        "trafilatura",
        description="resiliparse is some ten times faster and loses more of the text (docs/curation.md); it is an optional package.",
    )
    fast: bool = Field(
        False, description="trafilatura without its second and third opinions: half as slow again, a little worse."
    )


class CommonCrawl(Warc):
    """Captures of a Common Crawl index, each fetched by its range: an index file (CDXJ) or the address of an index server."""

    kind: Literal["common_crawl"] = "common_crawl"  # type: ignore[assignment]
    urls: tuple[str, ...] = Field(
        (), description="Addresses wanted; `example.org/*` is all that start so. None: all of the index."
    )
    statuses: tuple[str, ...] = Field(("200",), description="HTTP statuses wanted; none: any.")
    media_types: tuple[str, ...] = Field(("text/html", "application/xhtml+xml"), description="Media types wanted; none: any.")
    languages: tuple[str, ...] = Field((), description="ISO 639-3 languages wanted, as the index names them (eng); none: any.")
    data: str = Field("https://data.commoncrawl.org/", description="Where the WARC files are: an address or a directory.")
    allow_private: bool = Field(False, description="Servers at private, loopback and link-local addresses too.")
    agent: str = Field("midtrain-dagster/0.1", pattern=r"^[\x20-\x7e]+$", description="User-Agent of the requests.")
    seconds: float = Field(60.0, gt=0, description="Longest time of one request, in seconds.")


class Crawl(AnySource):
    """A live crawl from a seed address: the pages of its host, and of other hosts that are named."""

    kind: Literal["crawl"] = "crawl"
    location: str = Field(description="The first address, http or https.")
    seeds: tuple[str, ...] = Field((), description="More addresses to start at.")
    hosts: tuple[str, ...] = Field((), description="Hosts that links may lead to, beside those of the seeds.")
    sitemaps: bool = Field(True, description="Follow the sitemaps that robots.txt names.")
    feeds: bool = Field(True, description="Follow the feeds that the first pages name.")
    max_depth: int = Field(3, ge=0, description="Links to follow from a seed, sitemap or feed.")
    max_pages: int = Field(1000, ge=1, description="Most requests, robots.txt not counted.")
    max_bytes: int = Field(1 << 30, ge=1, description="Most bytes to receive.")
    delay: float = Field(1.0, ge=0, description="Seconds between two requests to a host; robots.txt may ask for more.")
    seconds: float = Field(30.0, gt=0, description="Longest time of one request, in seconds.")
    allow_private: bool = Field(False, description="Servers at private, loopback and link-local addresses too.")
    agent: str = Field(
        "midtrain-dagster/0.1",
        pattern=r"^[\x20-\x7e]+$",
        description="User-Agent; the part before the slash is what robots.txt knows.",
    )
    edition: str | None = Field(None, description="Any word. Nothing says that a site has changed: change this to crawl again.")
    extractor: Literal["trafilatura", "resiliparse"] = Field("trafilatura", description="As for WARC files.")
    fast: bool = Field(False, description="As for WARC files.")


class Wet(AnySource):
    """Common Crawl WET files: text that Common Crawl extracted."""

    kind: Literal["wet"] = "wet"


class Jsonl(AnySource):
    """Records as JSON Lines, or one JSON array; plain, .gz or .zst."""

    kind: Literal["jsonl"] = "jsonl"
    columns: Columns = Field(default_factory=lambda: Columns.model_validate({}), description="Which key means what.")
    preset: str | None = Field(
        None, description="A corpus whose columns are known: c4, pile, redstone, megamath, … (corpora.yaml)."
    )


class Parquet(Jsonl):
    """Records as Parquet."""

    kind: Literal["parquet"] = "parquet"  # type: ignore[assignment]


class Arrow(Jsonl):
    """Records as Arrow IPC, file or stream, as Hugging Face datasets caches them."""

    kind: Literal["arrow"] = "arrow"  # type: ignore[assignment]


class HuggingFace(Jsonl):
    """A data set as Hugging Face lays it out: a file or a directory of JSONL, Parquet or Arrow files, also from `save_to_disk`."""

    kind: Literal["huggingface"] = "huggingface"  # type: ignore[assignment]


class Text(AnySource):
    """Books and other plain text, one document a file; headers and footers of Project Gutenberg are cut."""

    kind: Literal["text"] = "text"
    domain: str = Field("prose", min_length=1, description="Subject that shares and scores are counted by.")
    encoding: str | None = Field(None, description="Character set of files that are not UTF-8 and do not declare one.")


class Epub(AnySource):
    """EPUB books, one document a book."""

    kind: Literal["epub"] = "epub"
    domain: str = Field("prose", min_length=1, description="Subject that shares and scores are counted by.")
    max_record_bytes: int = Field(64 << 20, ge=1024, description="Largest book, decompressed.")


class Pdf(AnySource):
    """PDF files with a text layer, one document a file."""

    kind: Literal["pdf"] = "pdf"
    domain: str = Field("prose", min_length=1, description="Subject that shares and scores are counted by.")
    max_record_bytes: int = Field(64 << 20, ge=1024, description="Largest file, and largest text taken from one.")
    max_pages: int = Field(5000, ge=1, description="Most pages of one file.")


class Books(AnySource):
    """Books of any form, one document a book: plain text, EPUB, PDF with a text layer, as the names of the files say."""

    kind: Literal["books"] = "books"
    domain: str = Field("prose", min_length=1, description="Subject that shares and scores are counted by.")
    max_record_bytes: int = Field(64 << 20, ge=1024, description="Largest book, decompressed.")
    max_pages: int = Field(5000, ge=1, description="Most pages of a PDF.")
    encoding: str | None = Field(None, description="Character set of plain text that is not UTF-8 and does not declare one.")


class Code(AnySource):
    """A directory or a git checkout: one document a file."""

    kind: Literal["code"] = "code"
    domain: str = Field("code", min_length=1, description="Subject that shares and scores are counted by.")
    format: str = Field("code", min_length=1, description="Shape of the text.")
    max_record_bytes: int = Field(1 << 20, ge=1024, description="Largest file.")
    include: tuple[str, ...] = Field(("**",), description="Globs over the path in the directory; a file must match one.")
    exclude: tuple[str, ...] = Field((), description="Globs over the path in the directory; a file must match none.")
    repository: bool = Field(
        False,
        description="One document a repository (the directory, or each git checkout in it), what is imported first; for long context.",
    )
    max_repository_bytes: int = Field(
        4 << 20, ge=1024, description="Largest repository document; a larger repository is several."
    )


class Wikipedia(AnySource):
    """MediaWiki XML dumps (.xml, .xml.bz2, .xml.gz)."""

    kind: Literal["wikipedia"] = "wikipedia"
    license: str | None = Field("CC-BY-SA-4.0", description="SPDX licence of the pages.")
    namespaces: tuple[int, ...] = Field((0,), description="Which namespaces are documents; 0 is articles.")


class StackExchange(AnySource):
    """Stack Exchange dumps (Posts.xml, also in .7z): a question with its best answers."""

    kind: Literal["stackexchange"] = "stackexchange"
    format: str = Field("qa", min_length=1, description="Shape of the text.")
    license: str | None = Field("CC-BY-SA-4.0", description="SPDX licence of posts that name none.")
    max_answers: int = Field(1, ge=1, description="Answers a question: the accepted one first, then by score.")
    min_score: int = Field(0, description="Least score of an answer that is not the accepted one.")
    site: str | None = Field(
        None,
        description="Host of the site (math.stackexchange.com), from which addresses are made; where none is given, the name of its archive or directory, if it looks like one.",
    )
    max_archive_bytes: int = Field(
        256 << 30, ge=1024, description="Largest Posts.xml taken out of a .7z archive, on temporary disk space."
    )


class Instruction(AnySource):
    """Human-annotated records, in JSON, JSONL, Parquet or Arrow: messages, ShareGPT, Alpaca, preference pairs."""

    kind: Literal["instruction"] = "instruction"
    domain: str = Field("instruction", min_length=1, description="Subject that shares and scores are counted by.")
    format: str = Field(
        "instruction", min_length=1, description="Shape of the text; several turns are `conversation` in any case."
    )


class Multimodal(AnySource):
    """Images by reference, each with its caption or alternative text: tables (JSON, Parquet, Arrow), or the pages of WARC files."""

    kind: Literal["multimodal"] = "multimodal"
    format: str = Field("image_caption", min_length=1, description="Shape of the text.")
    image: str | None = Field(None, description="Key of the image's address or path; none: image_url, URL, image, … are tried.")
    caption: str | None = Field(None, description="Key of the caption; none: caption, TEXT, alt_text, … are tried.")
    min_characters: int = Field(8, ge=1, description="Least length of a caption or alternative text.")


class Docstrings(AnySource):
    """Worked examples in Python docstrings, found by parsing the files, never by importing them."""

    kind: Literal["docstrings"] = "docstrings"
    location: str = Field("{site-packages}", description="Directory that holds the packages.")
    packages: tuple[str, ...] = Field(("sympy", "numpy", "scipy"), description="Packages in that directory.")
    domain: str = Field("math", min_length=1, description="Subject that shares and scores are counted by.")
    format: str = Field("qa", min_length=1, description="Shape of the text.")


class PackageMetadata(AnySource):
    """Long descriptions and licence texts of installed Python distributions."""

    kind: Literal["package_metadata"] = "package_metadata"
    location: str = Field("{site-packages}", description="Directory that holds the *.dist-info directories.")
    domain: str = Field("prose", min_length=1, description="Subject that shares and scores are counted by.")
    licences: bool = Field(True, description="Licence texts too.")
    exclude: tuple[str, ...] = Field((), description="Distributions to leave out, by name.")


Files = (
    Warc
    | CommonCrawl
    | Crawl
    | Multimodal
    | Wet
    | Jsonl
    | Parquet
    | Arrow
    | HuggingFace
    | Text
    | Books
    | Epub
    | Pdf
    | Wikipedia
    | StackExchange
    | Instruction
)
Source = Annotated[Files | Code | Docstrings | PackageMetadata, Field(discriminator="kind")]

KINDS = (
    "warc", "wet", "common_crawl", "crawl", "wikipedia", "stackexchange", "jsonl", "parquet", "arrow", "huggingface", "text", "books",
    "epub", "pdf", "code", "instruction", "multimodal", "docstrings", "package_metadata",
)  # fmt: skip


def source(values: Mapping[str, Any], where: str) -> Source:
    """Plain values as settings of their kind; raises MidtrainError that says what is wrong where."""
    try:
        checked: Source = TypeAdapter(Source).validate_python(dict(values))
    except ValidationError as error:
        problems = [f"{'.'.join(str(part) for part in e['loc'][1:]) or 'kind'}: {e['msg']}" for e in error.errors()]
        raise MidtrainError(f"{where}: " + "; ".join(problems)) from None
    return checked
