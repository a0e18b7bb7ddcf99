"""`midtrain takedown`: what a withdrawal touches, and the withdrawal."""

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from midtrain_dagster.commands import console, here
from midtrain_dagster.commands.audit import recipes_of
from midtrain_dagster.errors import MidtrainError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("takedown")(takedown)


def takedown(
    ids: Annotated[list[str] | None, typer.Option("--ids", help="Ids, comma-separated, or a file with one a line.")] = None,
    url: Annotated[list[str] | None, typer.Option("--url", help="An address; with * at its end all that begin so.")] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", help="A host and all below it (example.org); a word without a dot is a subject (math)."),
    ] = None,
    license: Annotated[
        list[str] | None, typer.Option("--license", help="A licence as documents name it; none: where none is stated.")
    ] = None,
    source: Annotated[list[str] | None, typer.Option("--source", help="All documents of a source.")] = None,
    copies: Annotated[str, typer.Option("--copies", help="Copies that go too: none, exact or near.")] = "none",
    reason: Annotated[str | None, typer.Option("--reason", help="Why; it stays with the tombstones.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Who asked; without it, who runs the command.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is affected and change nothing.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Show all takedowns so far.")] = False,
) -> None:
    """Withdraw documents for good: out of every later version, never to come back; affected checkpoints are marked."""
    from midtrain_dagster.audit.takedown import affected
    from midtrain_dagster.withdrawals import withdraw

    lake, project = here.lake()
    if listed:
        console.result({"takedowns": so_far(lake)})
        return
    if copies not in ("none", "exact", "near"):
        raise MidtrainError(f"--copies {copies}: choose none, exact or near")
    rules = rules_of(ids, url, domain, license, source)
    if not dry_run and not (reason and reason.strip()):
        raise MidtrainError("give a --reason; it stays with the tombstones (or look first with --dry-run)")
    recipes = recipes_of(lake) or list(project.recipes)
    found = affected(lake.tables, lake.artifacts, rules, copies, recipes)
    told: dict[str, Any] = {"rules": [str(rule) for rule in rules], **found.values(), "withdrawn": False}
    shown(told, dry_run)
    if not dry_run:
        if copies != "none":
            from midtrain_dagster.withdrawals import Rule

            rules += tuple(Rule("text", value) for value in found.documents["text_hash"].unique().sort())
        told |= {"reason": reason, "withdrawn": True}
        told["takedown"] = withdraw(
            lake.tables, found.documents, rules, str(reason), by or getpass.getuser(), datetime.now(UTC)
        )
        told["marked"] = mark_all(lake, recipes)
        console.say("withdrawn; `midtrain run` carries it into every table, mixture and model made from now on")
    console.result(told)


def mark_all(lake: Any, recipes: list[str]) -> list[str]:
    """Write beside every checkpoint that read withdrawn documents which ones, how much of it they are, and why they went."""
    from midtrain_dagster.audit.document import trained
    from midtrain_dagster.audit.takedown import marks

    files = []
    for recipe in recipes:
        for checkpoint, packed in trained(lake.artifacts, recipe):
            if found := marks(lake.tables, recipe, checkpoint, packed):
                name = f"midtrained_checkpoint/{recipe}"
                files.append(str(lake.artifacts.mark(name, checkpoint.fingerprint, "withdrawn", found)))
    return files


def rules_of(
    ids: list[str] | None, url: list[str] | None, domain: list[str] | None, license: list[str] | None, source: list[str] | None
) -> tuple[Any, ...]:
    """The rules that the options name; MidtrainError where there is none, or an empty one that would match at large."""
    from midtrain_dagster.withdrawals import Rule

    named = {"id": identifiers(ids or []), "url": url or [], "domain": domain or [], "license": license or [], "source": source}
    rules = tuple(Rule(kind, value.strip()) for kind, values in named.items() for value in values or [])  # type: ignore[arg-type]
    if not rules:
        raise MidtrainError("name what to withdraw: --ids, --url, --domain, --license or --source")
    empty = [rule for rule in rules if not rule.value.strip("*./ ")]
    if empty:
        raise MidtrainError(f"--{empty[0].kind} {empty[0].value!r}: says nothing; it would match everything or nothing")
    return rules


def identifiers(given: list[str]) -> list[str]:
    """Ids from the command line, and from files that it names."""
    found: list[str] = []
    for item in given:
        path = Path(item)
        if len(item) < 256 and path.is_file():
            found += [line.strip() for line in path.read_text().splitlines() if line.strip()]
        else:
            found += [part.strip() for part in item.split(",") if part.strip()]
    return list(dict.fromkeys(found))


def so_far(lake: Any) -> list[dict[str, Any]]:
    """Every takedown: when, by whom, why, its rules and how many documents it took out."""
    import polars as pl

    from midtrain_dagster.withdrawals import RULES, TOMBSTONES

    if not lake.tables.exists(RULES):
        return []
    stones = lake.tables.scan(TOMBSTONES) if lake.tables.exists(TOMBSTONES) else None
    counted = dict(stones.group_by("takedown").len().collect().iter_rows()) if stones is not None else {}
    told = lake.tables.read(RULES).with_columns(rule=pl.col("kind") + " " + pl.col("value"))
    grouped = told.group_by("takedown", "reason", "requested_by", "at").agg(rules="rule").sort("at")
    return [{**row, "documents": counted.get(row["takedown"], 0)} for row in grouped.iter_rows(named=True)]


def shown(told: dict[str, Any], dry_run: bool) -> None:
    """What is affected, for people."""
    console.say(
        f"{'would withdraw' if dry_run else 'withdrawing'} {told['documents']:,} documents ({', '.join(told['rules'])[:200]})"
    )
    for source, count in told["by_source"].items():
        console.say(f"  {count:,} of {source}")
    if told["made_from_them"]:
        console.say(f"  {told['made_from_them']:,} of these were made from the others")
    for kind, count in told["copies_not_withdrawn"].items():
        console.say(f"  {count:,} {kind} copies stay; --copies {kind} takes them too")
    for name, rows in told["tables"].items():
        console.say(f"  {name}: {rows:,} rows")
    for row in told["artifacts"]:
        seen = f", seen {row['times']:,} times, {row['tokens']:,} tokens" if "times" in row else ""
        console.say(f"  {row['artifact']}: {row['documents']:,} documents{seen}")
    if not told["documents"]:
        console.say("  nothing in the lake matches; a takedown would keep such documents out from now on")
