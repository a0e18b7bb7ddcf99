"""The report: one HTML file that opens offline, for a reader who knows nothing of the project."""

import base64
from dataclasses import dataclass
from typing import Any

import polars as pl

from midtrain_dagster.evaluate.plots import bits_plot, score_plot
from midtrain_dagster.recipes.recipe import Recipe


@dataclass(frozen=True)
class Gathered:
    """Everything that a report speaks of."""

    recipe: Recipe
    sources: pl.DataFrame  # source, documents, rejected, characters, licences, data version
    left: pl.DataFrame  # the funnel: source, rule, kept, documents, characters
    mixture: pl.DataFrame  # stage, component, share, budgeted, packed
    unpacked: pl.DataFrame  # component, reason, documents, tokens
    loss_plot: str  # loss and learning rate over steps, PNG in base64
    training: dict[str, Any]  # summary of the training
    base_bits: pl.DataFrame  # bits per byte of each held-out document, base
    mid_bits: pl.DataFrame  # and mid-trained
    base_domains: pl.DataFrame  # by domain, with intervals
    mid_domains: pl.DataFrame
    comparison: pl.DataFrame  # a row a benchmark and metric
    changes: pl.DataFrame  # questions that changed most
    not_run: dict[str, str]  # benchmark → reason
    contamination: pl.DataFrame  # benchmark, source, questions, questions touched, documents
    generators: pl.DataFrame  # a row a generator; no rows where there are none
    versions: dict[str, Any]  # data versions of what went in


def contrast(gathered: Gathered) -> pl.DataFrame:
    """Bits per byte before and after, by domain, with a paired bootstrap interval of the difference over documents.

    Columns: domain, role (target or general), documents, base, mid, difference, low, high, relative_change, verdict.
    """
    import numpy as np

    goal, settings = gathered.recipe.goal, gathered.recipe.evaluation
    pairs = gathered.base_bits.join(gathered.mid_bits.select("id", mid_bits="bits"), on="id", how="inner")
    rows = []
    for domain in (*goal.target, *(d for d in goal.general if d not in goal.target)):
        some = pairs.filter(pl.col("domain") == domain)
        if not len(some):
            continue
        before, after, size = (some[name].to_numpy() for name in ("bits", "mid_bits", "bytes"))
        rng = np.random.default_rng(settings.seed)
        draws = rng.multinomial(len(some), np.full(len(some), 1 / len(some)), size=settings.bootstrap)
        moved = (draws @ (after - before)) / (draws @ size)
        tail = (1 - settings.confidence) / 2
        low, high = (float(q) for q in np.quantile(moved, [tail, 1 - tail]))
        base, mid = float(before.sum() / size.sum()), float(after.sum() / size.sum())
        rows.append(
            {
                "domain": domain,
                "role": "target" if domain in goal.target else "general",
                "documents": len(some),
                "base": base,
                "mid": mid,
                "difference": mid - base,
                "low": low,
                "high": high,
                "relative_change": mid / base - 1,
                "verdict": "gained" if high < 0 else "lost" if low > 0 else "cannot tell",
            }
        )
    return pl.DataFrame(rows)


def verdict(gathered: Gathered) -> str:
    """One sentence on what the run did."""
    said = []
    for row in contrast(gathered).iter_rows(named=True):
        moved = f"{abs(row['relative_change']):.1%}"
        interval = f"[{row['low']:+.3f}, {row['high']:+.3f}]"
        words = {
            "gained": f"improved by {moved}",
            "lost": f"got worse by {moved}",
            "cannot tell": f"moved by {moved}, within its error",
        }
        said.append(
            f"{row['domain']} ({row['role']}) {words[row['verdict']]}: {row['base']:.3f} → {row['mid']:.3f} bits per byte, "
            f"difference {row['difference']:+.3f} {interval}"
        )
    return "; ".join(said) + "."


def render(gathered: Gathered) -> str:
    """The report as HTML with its pictures inside."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("midtrain_dagster.evaluate", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figures": figures, "percent": lambda value: "" if value is None else f"{value:.1%}"}
    return environment.get_template("report.html.j2").render(
        r=gathered,
        recipe=gathered.recipe,
        contrast=contrast(gathered).to_dicts(),
        verdict=verdict(gathered),
        funnel=_funnel(gathered.left),
        bits_plot=_embedded(bits_plot(gathered.base_domains, gathered.mid_domains)),
        score_plot=_embedded(score_plot(gathered.comparison)) if len(gathered.comparison) else None,
        loss_plot=f"data:image/png;base64,{gathered.loss_plot}",
        confidence=f"{gathered.recipe.evaluation.confidence:.0%}",
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


def _funnel(left: pl.DataFrame) -> list[dict[str, Any]]:
    """Per source: documents there were, kept, and left out by rule, most first."""
    rows = []
    for source in left["source"].unique().sort():
        some = left.filter(pl.col("source") == source)
        kept = some.filter(pl.col("kept"))
        dropped = some.filter(~pl.col("kept")).sort("documents", "rule", descending=[True, False])
        rows.append(
            {
                "source": source,
                "documents": int(some["documents"].sum()),
                "kept": int(kept["documents"].sum()),
                "characters": int(kept["characters"].sum() or 0),
                "left": ", ".join(f"{rule} {count:,}" for rule, count in dropped.select("rule", "documents").iter_rows()),
            }
        )
    return rows


def _embedded(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
