"""The first screen: in a few sentences what was gained, what was lost, what nobody can tell."""

from typing import Any

import polars as pl

from midtrain_dagster.evaluate.report import kept, words
from midtrain_dagster.evaluate.report.page import Section, figures, moved, percent
from midtrain_dagster.evaluate.verdicts import LOWER_IS_BETTER


def section(held_out: pl.DataFrame, comparison: pl.DataFrame, retained: pl.DataFrame, training: dict[str, Any]) -> Section:
    """From the tables of the sections below (`held_out.contrast`, `compare`, `kept`) and the summary of the training."""
    values = {
        "sentences": sentences(held_out, comparison, retained),
        "cards": held_out.to_dicts(),
        "training": training,
        "counts": _counts(comparison),
    }
    return Section("headline", "In short", values)


def sentences(held_out: pl.DataFrame, comparison: pl.DataFrame, retained: pl.DataFrame) -> list[tuple[str, str]]:
    """(verdict, sentence): targets, what had to be kept, benchmarks, leaks."""
    said = [_target(row) for row in held_out.filter(pl.col("role") == "target").iter_rows(named=True)]
    said.append(_kept(retained))
    if comparison.height:
        said += _benchmarks(comparison)
        vanished = comparison.filter("gain_disappears")
        if vanished.height:
            names = _listed([words.benchmark(name) for name in vanished["benchmark"].unique().sort()])
            said.append(
                (
                    "lost",
                    f"The gain on {names} is not there any more once the questions that stand in the collected text are set aside.",
                )
            )
    else:
        said.append(("cannot tell", "No benchmark ran."))
    return said


def _target(row: dict[str, Any]) -> tuple[str, str]:
    change = percent(abs(row["relative_change"]))
    words_for = {
        "gained": f"The model reads {row['domain']} better: {change} fewer bits for each byte of text that it had not seen.",
        "lost": f"The model reads {row['domain']} worse, though that was the aim: {change} more bits for each byte of unseen text.",
        "unchanged": f"The model reads {row['domain']} as before: {moved(row['relative_change'])} bits per byte of unseen text.",
        "cannot tell": f"Whether the model reads {row['domain']} better cannot be told from {row['documents']} documents: "
        f"{moved(row['relative_change'])} bits per byte, with an interval on both sides of none.",
    }
    return row["verdict"], words_for[row["verdict"]]


def _kept(retained: pl.DataFrame) -> tuple[str, str]:
    if retained.is_empty():
        return "cannot tell", "Whether it forgot anything was not measured."
    lost, open_ = (retained.filter(pl.col("verdict") == verdict) for verdict in ("lost", "cannot tell"))
    if lost.height:
        names = _measures(lost)
        return "lost", f"It forgot more than the recipe accepts: {names}."
    if open_.height:
        names = _measures(open_)
        return (
            "cannot tell",
            f"No loss beyond what the recipe accepts was seen, but too little was asked to exclude one: {names}.",
        )
    return "gained", "What it knew before is still there, within what the recipe accepts."


def _measures(retained: pl.DataFrame) -> str:
    return _listed([f"{kept.name_of(row)} ({words.metric(row['metric'])})" for row in retained.iter_rows(named=True)])


def _benchmarks(comparison: pl.DataFrame) -> list[tuple[str, str]]:
    """Answers first; then how likely the right ones have become."""
    said = []
    likely = pl.col("metric").is_in(LOWER_IS_BETTER)
    for condition, verdict, begin in (
        (~likely, "gained", "It answers better on"),
        (~likely, "lost", "It answers worse on"),
        (likely, "gained", "Right answers have become likelier to it on"),
        (likely, "lost", "Right answers have become less likely to it on"),
    ):
        some = comparison.filter(condition, pl.col("verdict") == verdict)["benchmark"].unique(maintain_order=True)
        if len(some):
            said.append((verdict, f"{begin} {_listed([words.benchmark(name) for name in some])}."))
    if not said:
        ran = comparison["benchmark"].n_unique()
        said.append(
            ("cannot tell", f"On {ran} benchmark{'s' if ran > 1 else ''} no difference is large enough to be told from chance.")
        )
    return said


def _listed(names: list[str], most: int = 6) -> str:
    shown = names[:most] + ([f"{figures(len(names) - most)} more"] if len(names) > most else [])
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _counts(comparison: pl.DataFrame) -> dict[str, int]:
    found = dict(comparison.group_by("verdict").len().iter_rows()) if comparison.height else {}
    return {verdict: int(found.get(verdict, 0)) for verdict in ("gained", "unchanged", "lost", "cannot tell")}


def one_line(held_out: pl.DataFrame) -> str:
    """What the run did to held-out text, for logs and metadata."""
    said = []
    for row in held_out.iter_rows(named=True):
        change = percent(abs(row["relative_change"]))
        did = {
            "gained": f"improved by {change}",
            "lost": f"got worse by {change}",
            "unchanged": f"is unchanged ({change})",
            "cannot tell": f"moved by {change}, within its error",
        }[row["verdict"]]
        said.append(
            f"{row['domain']} ({row['role']}) {did}: {row['base']:.3f} → {row['mid']:.3f} bits per byte, "
            f"difference {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        )
    return "; ".join(said) + "."
