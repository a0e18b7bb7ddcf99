"""The page: a headline, and sections one under another, each drawn by a template of its own."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from midtrain_dagster.evaluate.report import words


class Section(NamedTuple):
    """One part of the report."""

    name: str  # templates/<name>.html.j2, and the anchor in the page
    title: str
    values: Mapping[str, Any]  # what the template reads


def page(title: str, description: str, headline: Section, sections: Sequence[Section]) -> str:
    """The report as HTML, with its pictures inside and nothing loaded from elsewhere."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("midtrain_dagster.evaluate.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= FILTERS

    def drawn(section: Section) -> str:
        return environment.get_template(f"{section.name}.html.j2").render(**section.values)

    return environment.get_template("page.html.j2").render(
        title=title,
        description=description,
        headline=drawn(headline),
        sections=[{"name": section.name, "title": section.title, "body": drawn(section)} for section in sections],
    )


def figures(value: Any) -> str:
    """A number as people read it: thousands apart, four significant figures, nothing for a missing one."""
    if value is None:
        return ""
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as percent; nothing for a missing one."""
    return "" if value is None else f"{100 * value:.{digits}f} %"


def moved(value: float | None, digits: int = 1) -> str:
    """A change as percent with its sign."""
    if value is None:
        return ""
    said = f"{100 * value:+.{digits}f}"
    return f"{said.lstrip('+-') if float(said) == 0 else said.replace('-', '−')} %"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 120 else f"{hours:.1f} h"


def embedded(image: bytes) -> str:
    """A picture as a data URI: SVG where it begins like one, else PNG."""
    kind = "svg+xml" if image.lstrip().startswith((b"<?xml", b"<svg")) else "png"
    return f"data:image/{kind};base64," + base64.b64encode(image).decode()


FILTERS = {
    "figures": figures,
    "percent": percent,
    "moved": moved,
    "duration": duration,
    "score": words.score,
    "change": words.change,
    "benchmark": words.benchmark,
    "domain": words.domain,
    "metric": words.metric,
}
