"""Images with their captions or alternative texts: one document an image, the image by reference."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from midtrain_dagster.collect import html, rows, warc
from midtrain_dagster.collect.columns import value_at
from midtrain_dagster.collect.html import Page
from midtrain_dagster.collect.records import Items, Record, Rejected
from midtrain_dagster.collect.rows import Row
from midtrain_dagster.project.sources import Multimodal

IMAGES = ("image_url", "URL", "url", "image_path", "image", "file_name")  # LAION (arXiv:2111.02114), CC3M and others
CAPTIONS = ("caption", "TEXT", "text", "alt_text", "alt")
KEPT = ("width", "height", "WIDTH", "HEIGHT", "page_url", "similarity", "NSFW")


def read(path: Path, name: str, source: Multimodal) -> Items:
    """The captioned images of a table or of a WARC file's pages."""
    if path.name.lower().endswith(warc.SUFFIXES):
        for page in warc.pages(path, name, source.max_record_bytes):
            yield from (page,) if isinstance(page, Rejected) else of_page(page, source.min_characters)
        return
    for row in rows.read(path, name, source.max_record_bytes):
        yield row if isinstance(row, Rejected) else _of_row(row, source)


def _of_row(row: Row, source: Multimodal) -> Record | Rejected:
    image = _first(row.values, (source.image,) if source.image else IMAGES)
    caption = _first(row.values, (source.caption,) if source.caption else CAPTIONS)
    if image is None or image.startswith("data:"):
        return Rejected(row.location, "no image reference", f"keys: {', '.join(map(str, row.values))}"[:300])
    if caption is None or len(caption.strip()) < source.min_characters:
        return Rejected(row.location, "no caption", image[:300])
    about = {"image": image, **{key.lower(): row.values[key] for key in KEPT if row.values.get(key) is not None}}
    own = row.values.get("id")
    locator = str(own) if isinstance(own, str | int) and own != "" else row.location
    return Record(locator, caption.strip(), row.location, url=_address(image), metadata=about)


def _first(values: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    """The first of the keys that holds a string; Hugging Face's image column holds its path in a record."""
    for key in keys:
        found = value_at(values, key)
        found = found.get("path") if isinstance(found, Mapping) else found
        if isinstance(found, str) and found.strip():
            return found
    return None


def _address(image: str) -> str | None:
    return image if image.startswith(("http://", "https://")) else None


def of_page(page: Page, min_characters: int) -> Iterator[Record | Rejected]:
    """The images of a page that say what they show: figures by their captions, others by their alternative text."""
    try:
        tree, _ = html.parsed(page.body, page.charset)
    except ValueError as error:
        yield Rejected(page.location, error.args[0], f"{error.args[1]} {page.url}"[:300])
        return
    met: set[str] = set()
    for image in tree.iter("img"):
        source = (image.get("src") or "").strip()
        figure = next(image.iterancestors("figure"), None)
        captions = figure.xpath(".//figcaption") if figure is not None else []
        alternative = " ".join((image.get("alt") or "").split())
        caption = " ".join(captions[0].text_content().split()) if captions else ""
        text = caption if len(caption) >= min_characters else alternative
        address = _joined(page.url, source)
        if not source or source.startswith("data:") or address is None or len(text) < min_characters or address in met:
            continue
        met.add(address)
        about = {
            "image": address,
            "page_url": page.url,
            "alt": alternative,
            "width": image.get("width"),
            "height": image.get("height"),
        }
        yield Record(f"{page.url}#{address}", text, page.location, url=address, metadata={**page.metadata, **about})
    if not met:
        yield Rejected(page.location, "no captioned image", page.url[:300])


def _joined(base: str, source: str) -> str | None:
    try:
        return urljoin(base, source)
    except ValueError:
        return None
