"""The documentation of installed libraries as a website in a WARC file: a real web source for a machine without a network.

A page looks as documentation sites do: a header with a search box, a navigation tree, related links, a footer on every
page. All of that extraction must take away again.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from midtrain_dagster.collect import rst
from midtrain_dagster.collect.docstrings import Docstring, in_package
from midtrain_dagster.collect.licenses import metadata, of_metadata
from midtrain_dagster.collect.places import expand
from midtrain_dagster.collect.records import Rejected
from midtrain_dagster.collect.warc import write_warc

LEAST = 400  # characters of a docstring that is worth a page
LARGEST = 4 << 20  # bytes of a module


class Site(NamedTuple):
    """A library's documentation."""

    package: str
    version: str
    license: str | None
    date: datetime  # of the library's metadata file


def render_site(packages: Sequence[str], out: Path, site_packages: Path | None = None) -> dict[str, int]:
    """Write the docstrings of installed packages to `out` (.warc.gz): a page for each module, class and function that has
    much to say.

    Returns pages, modules left out as unreadable, and bytes of HTML. The same installation gives the same bytes.
    Raises MidtrainError for a package that is not installed.
    """
    directory = site_packages or Path(expand("{site-packages}", Path()))
    counts = {"pages": 0, "unreadable": 0, "bytes": 0}

    def pages() -> Iterator[tuple[str, str, datetime]]:
        for package in packages:
            site = about(directory, package)
            for url, html in rendered(site, directory, counts):
                counts["bytes"] += len(html.encode())
                yield url, html, site.date

    counts["pages"] = write_warc(out, pages())
    return counts


def about(directory: Path, package: str) -> Site:
    """Version, licence and date of a package, from the distribution that carries it."""
    for info in sorted(directory.glob("*.dist-info")):
        record = info / "RECORD"
        if record.is_file() and re.search(rf"^{re.escape(package)}(/__init__)?\.py,", record.read_text(errors="replace"), re.M):
            found = metadata(info)
            written = datetime.fromtimestamp(int((info / "METADATA").stat().st_mtime), UTC)
            return Site(package, str(found.get("Version")), of_metadata(found), written)
    source = directory / package
    path = source if source.exists() else source.with_suffix(".py")
    written = datetime.fromtimestamp(int(path.stat().st_mtime), UTC) if path.exists() else datetime(2000, 1, 1, tzinfo=UTC)
    return Site(package, "0", None, written)


def rendered(site: Site, directory: Path, counts: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Address and HTML of the pages of one library, module by module."""
    readable = []
    for found in in_package(directory, site.package, LARGEST):
        if isinstance(found, Rejected):
            counts["unreadable"] += 1
        elif not any(part.startswith("_") and part != "__init__" for part in found.name.split(".")[-1:]):
            readable.append(found)
    modules = [(path, list(group)) for path, group in groupby(readable, key=lambda found: found.path)]
    names = sorted({_public(group[0].name) for _, group in modules})
    met: set[str] = set()
    for _, group in modules:
        for found in group:
            url = f"https://{site.package}.docs.example/{site.version}/reference/{_public(found.name)}.html"
            if len(found.text) >= LEAST and url not in met:
                met.add(url)
                yield url, page(found, site, group, names)


def _public(name: str) -> str:
    """The name under which a library shows an object: private modules on the way left out, as libraries re-export them."""
    return ".".join(part for part in name.split(".") if not part.startswith("_") or part.startswith("__"))


def page(found: Docstring, site: Site, siblings: Sequence[Docstring], modules: Sequence[str]) -> str:
    """One page. Navigation names the library's modules and the neighbours of the object."""
    name = _public(found.name)
    short = name.rsplit(".", 1)[-1]
    near = [_public(other.name) for other in siblings if other.name != found.name][:20]
    start = modules.index(_public(siblings[0].name)) if _public(siblings[0].name) in modules else 0
    tree = "".join(f'<li><a href="{escape(m)}.html">{escape(m)}</a></li>' for m in modules[max(0, start - 12) : start + 12])
    links = "".join(f'<li><a href="{escape(n)}.html">{escape(n.rsplit(".", 1)[-1])}</a></li>' for n in near)
    title = f"{name} — {site.package} v{site.version} Manual"
    signature = f'<pre class="signature">{escape(found.kind)} {escape(found.signature)}</pre>' if found.signature else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="description" content="{escape(found.text.split(chr(10), 1)[0], quote=True)}">
<meta property="article:published_time" content="{site.date:%Y-%m-%d}"></head>
<body>
<header class="navbar"><a href="/">{escape(site.package)}</a> <a href="/install">Install</a> <a href="/reference">API reference</a>
<a href="/release">Release notes</a> <form role="search"><input name="q" placeholder="Search the docs"></form></header>
<nav class="sidebar" aria-label="Section navigation"><p>Section navigation</p><ul>{tree}</ul></nav>
<main><article>
<h1>{escape(name)}</h1>
{signature}
{rst.html(found.text)}
</article></main>
<aside class="related"><h3>On this page</h3><a href="#top">{escape(short)}</a><h3>Related</h3><ul>{links}</ul></aside>
<footer><p>© Copyright the {escape(site.package)} developers. Licence: {escape(site.license or "unknown")}.</p>
<p>Created using a documentation generator. Last updated on {site.date:%d %B %Y}. <a href="#top">Back to top</a></p></footer>
</body></html>
"""
