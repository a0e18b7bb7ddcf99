"""What every asset tells the UI: counts, a data version, a picture where people would rather look than read."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from assets import columns
from assets.measure import check
from midtrain_dagster.artifacts import Artifact
from midtrain_dagster.progress import Progress
from midtrain_dagster.refresh import Refreshed
from midtrain_dagster.tables import Tables

OWNERS = ["team:midtrain"]
SAMPLE_CHARACTERS = 300
BLOCK = "\u2588"
# A materialization downstream of a refresh: when what it reads has other content, or when its own code has changed.
AC: Any = dg.AutomationCondition
AUTOMATION: dg.AutomationCondition = (
    AC.eager().replace("newly_updated", AC.data_version_changed()) | AC.code_version_changed().since_last_handled()
) & ~AC.in_progress()


def progress(context: dg.AssetExecutionContext, label: str, unit: str, total: float | None = None) -> Progress:
    """Progress in the run's log, at most one line every two seconds."""
    return Progress(context.log.info, label, unit, total, interval=2.0, check=check)


def of_table(
    context: dg.AssetExecutionContext, tables: Tables, table: str, refreshed: Refreshed, more: Mapping[str, Any] | None = None
) -> dg.MaterializeResult:
    """The result of an asset that keeps its rows in a table."""
    if refreshed.changed:
        context.log.info(
            f"{context.asset_key.to_user_string()}: worked on {refreshed.worked:,} documents, "
            f"withdrew {refreshed.gone:,}; {refreshed.rows:,} rows now"
        )
    else:
        context.log.info(f"{context.asset_key.to_user_string()}: up to date, {refreshed.rows:,} rows")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(refreshed.digest),
        metadata={
            "dagster/row_count": refreshed.rows,
            "dagster/uri": tables.uri(table),
            "dagster/column_schema": dg.TableSchema(
                [dg.TableColumn(name, str(kind)) for name, kind in tables.schema(table).items()]
            ),
            **columns.lineage(context, tables, table),
            "up to date": not refreshed.changed,
            "worked on": refreshed.worked,
            "withdrawn": refreshed.gone,
            "table version": refreshed.version,
            **_plain(refreshed.about),
            **(more or {}),
        },
    )


def of_artifact(
    context: dg.AssetExecutionContext, artifact: Artifact, made: bool, more: Mapping[str, Any] | None = None
) -> dg.MaterializeResult:
    """The result of an asset that is a directory."""
    context.log.info(f"{context.asset_key.to_user_string()}: {'made' if made else 'up to date'} in {artifact.path}")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(artifact.digest),
        metadata={
            "dagster/uri": str(artifact.path),
            "up to date": not made,
            "worked on": int(made),
            "fingerprint": artifact.fingerprint,
            **_plain(artifact.about),
            **(more or {}),
        },
    )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that Dagster's metadata can hold; numbers stay numbers, so that the UI draws their time series."""
    return {k: v if isinstance(v, bool | int | float | str) else dg.MetadataValue.json(v) for k, v in values.items()}


def bars(frame: pl.DataFrame, column: str, by: str | None = None, rows: int = 20) -> dg.MetadataValue:
    """A frame as a Markdown table with a bar for each row's share of a column, of all rows or of those with the same `by`.

    Where a refresh has to be cheap, this is the picture: drawing one takes longer than cleaning a hundred documents.
    """
    total = pl.col(column).sum() if by is None else pl.col(column).sum().over(by)
    shares = frame.select(pl.col(column).fill_null(0) / total).to_series().fill_nan(0).to_list()
    return markdown(frame.with_columns(pl.Series("share", [BLOCK * round(24 * share) for share in shares], pl.String)), rows)


def plot(figure: Any) -> dg.MetadataValue:
    """A matplotlib figure as Markdown with an embedded PNG, small enough for the event log."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{png(figure)})")


def png(figure: Any, dpi: int = 80) -> str:
    """A matplotlib figure as base64 PNG; the figure is closed."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def picture(data: bytes) -> dg.MetadataValue:
    """A finished PNG as Markdown."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(data).decode()})")


def markdown(frame: pl.DataFrame, rows: int = 20, characters: int = SAMPLE_CHARACTERS) -> dg.MetadataValue:
    """The first rows of a frame as a Markdown table, long texts cut."""

    def cell(value: Any) -> str:
        said = f"{value:,.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else f"{value}"
        said = " ".join(said.split()).replace("|", "\\|")
        return said if len(said) <= characters else said[:characters] + " …"

    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * len(frame.columns)]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in frame.head(rows).iter_rows()]
    return dg.MetadataValue.md("\n".join(lines))
