"""What a recipe cost: by stage, by asset, and for each point that the model gained."""

from pathlib import Path
from typing import Any

import polars as pl

from midtrain_dagster.ledger import SUMS

BITS = "gold_bits_per_byte"  # where lower is better; domains say the same over more text


def of_recipe(lines: pl.DataFrame, recipe: str, run: str | None = None, since: str | None = None) -> pl.DataFrame:
    """The ledger's lines of a recipe: its own assets, and those that all recipes of the project share."""
    chosen = lines.filter(pl.col("recipe").is_null() | (pl.col("recipe") == recipe))
    if run is not None:
        chosen = chosen.filter((pl.col("run") == run) | (pl.col("root_run") == run))
    return chosen.filter(pl.col("at") >= since) if since else chosen


def by(lines: pl.DataFrame, *names: str) -> pl.DataFrame:
    """Sums by stage or asset, the peak of memory, and how often something was made; dearest first."""
    sums = [pl.col(name).sum() for name in SUMS]
    peak = pl.col("peak_memory_bytes").max()
    runs = pl.col("outcome").is_in(["made", "failed", "stopped"]).sum().alias("times")
    return (
        lines.group_by(*names)
        .agg(*sums, peak, runs)
        .sort("money", "cpu_seconds", *names, descending=[True, True, *(False for _ in names)])
    )


def total(lines: pl.DataFrame) -> dict[str, Any]:
    """The same over all lines; zeros where there are none."""
    if not len(lines):
        return {**dict.fromkeys(SUMS, 0), "peak_memory_bytes": None, "times": 0}
    return by(lines.with_columns(all=pl.lit("all")), "all").drop("all").row(0, named=True)


def gains(report: Path) -> pl.DataFrame:
    """What an evaluation report says was gained: `what`, `points`, `verdict`.

    Of a benchmark, points are hundredths of its score; of held-out text, percent fewer bits per byte.
    """
    rows: list[dict[str, Any]] = []
    for row in pl.read_parquet(report / "comparison.parquet").iter_rows(named=True):
        if row["metric"] != BITS and row["difference"] is not None:
            what = f"{row['benchmark']} ({row['metric']})"
            rows.append({"what": what, "points": 100.0 * row["difference"], "verdict": row["verdict"]})
    domains = pl.read_parquet(report / "domains.parquet")
    for row in domains.iter_rows(named=True):
        what = f"bits per byte of {row['domain']} text"
        rows.append({"what": what, "points": -100.0 * row["relative_change"], "verdict": row["verdict"]})
    return pl.DataFrame(rows, schema={"what": pl.String, "points": pl.Float64, "verdict": pl.String})


def per_point(gained: pl.DataFrame, spent: dict[str, Any]) -> pl.DataFrame:
    """For each thing gained: money, CPU hours, accelerator hours and teacher tokens of the whole recipe a point. Null where nothing was."""
    tokens = (spent.get("teacher_prompt_tokens") or 0) + (spent.get("teacher_completion_tokens") or 0)
    amounts = {
        "money": spent.get("money") or 0.0,
        "cpu_hours": (spent.get("cpu_seconds") or 0.0) / 3600,
        "gpu_hours": (spent.get("gpu_seconds") or 0.0) / 3600,
        "teacher_tokens": float(tokens),
    }
    rise = pl.when(pl.col("points") > 0).then(pl.col("points"))
    return gained.with_columns(**{f"{name}_per_point": pl.lit(amount) / rise for name, amount in amounts.items()})


def page(recipe: str, lines: pl.DataFrame, gained: pl.DataFrame) -> str:
    """The account of a recipe as one HTML page that opens offline."""
    import jinja2

    places = jinja2.PackageLoader("midtrain_dagster.audit", "templates")
    environment = jinja2.Environment(loader=places, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"figures": figures, "seconds": seconds, "size": size}
    spent = total(lines)
    return environment.get_template("costs.html.j2").render(
        recipe=recipe,
        total=spent,
        stages=by(lines, "stage").to_dicts(),
        assets=by(lines, "stage", "asset").to_dicts(),
        gains=per_point(gained, spent).to_dicts(),
        runs=lines["root_run"].n_unique(),
        first=lines["at"].min(),
        last=lines["at"].max(),
    )


def figures(value: float | int | None) -> str:
    """A number as people read it; nothing where it is not known."""
    if value is None:
        return ""
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.3g}"


def seconds(value: float | None) -> str:
    """Seconds, minutes or hours."""
    if value is None:
        return ""
    for name, length in (("h", 3600.0), ("min", 60.0)):
        if value >= length:
            return f"{value / length:,.1f} {name}"
    return f"{value:.1f} s"


def size(value: float | None) -> str:
    """Bytes as people read them."""
    if value is None:
        return ""
    for name, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= length:
            return f"{value / length:,.1f} {name}"
    return f"{value:.0f} B"
