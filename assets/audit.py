"""Audit: the lineage of each recipe's checkpoint, down to the sources and their licences."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, markdown, of_artifact
from midtrain_dagster.audit.lineage import Node, lines, tree, values
from midtrain_dagster.audit.takedown import marks
from midtrain_dagster.code import code_version
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.refresh import fingerprint
from resources.lake import Lake

GROUP = "audit"


def lineage_report(recipe: Recipe) -> dg.AssetsDefinition:
    """Everything that a checkpoint was made from, with the digests to verify it by."""

    @dg.asset(
        key=["lineage_report", recipe.name],
        deps=[["midtrained_checkpoint", recipe.name]],
        group_name=GROUP,
        kinds={"json"},
        owners=OWNERS,
        code_version=code_version("audit"),
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=f"The checkpoint of `{recipe.name}` back to its sources: versions, digests, licences, retrieval dates.",
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        name = f"midtrained_checkpoint/{recipe.name}"
        trained = lake.artifacts.current(name)

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            root = tree(lake.tables, lake.artifacts, name)
            said = json.dumps(values(root), indent=1, sort_keys=True, default=str)
            (out / "lineage.json").write_text(said)
            (out / "lineage.txt").write_text("\n".join(lines(root)) + "\n")
            found = sorted(digests(root))
            return fingerprint(found), {"assets": len(found)}

        artifact, made = lake.artifacts.build(
            f"lineage_report/{recipe.name}",
            fingerprint(code_version("audit"), trained.fingerprint, since(lake, recipe.name)),
            make,
            {name: trained.fingerprint},
        )
        tree_text = (artifact.path / "lineage.txt").read_text()
        more = {"lineage": dg.MetadataValue.md(f"```\n{tree_text}```"), "sources": markdown(sources(artifact.path))}
        return of_artifact(context, artifact, made, more)

    return asset


def since(lake: Lake, recipe: str) -> list[dict[str, Any]]:
    """What has been withdrawn since a recipe's newest checkpoint read it."""
    checkpoint = lake.artifacts.current(f"midtrained_checkpoint/{recipe}")
    packed = lake.artifacts.get(f"packed_sequences/{recipe}", str(checkpoint.inputs[f"packed_sequences/{recipe}"]))
    return marks(lake.tables, recipe, checkpoint, packed) if packed else []


def digests(node: Node) -> set[tuple[str, str]]:
    """Assets with the digest of their content, over the whole tree.

    Without the numbers of table versions: after a kill the same content may stand a commit later.
    """
    return {(node.name, node.digest)}.union(*map(digests, node.inputs))


def sources(folder: Path) -> pl.DataFrame:
    """The leaves of a lineage that are sources: when they were retrieved and under which licences."""
    rows: dict[str, dict[str, Any]] = {}

    def walk(node: dict[str, Any]) -> None:
        if node["table"] == "raw_documents":
            about = node["about"]
            rows[node["name"]] = {
                "source": node["name"].rpartition("/")[2],
                "documents": about.get("rows"),
                "retrieved": " to ".join(dict.fromkeys(about.get("retrieved", []))),
                "licences": ", ".join(f"{licence} {count:,}" for licence, count in about.get("licences", {}).items()),
            }
        for child in node["inputs"]:
            walk(child)

    walk(json.loads((folder / "lineage.json").read_text()))
    return pl.DataFrame([rows[name] for name in sorted(rows)])


def assets(recipes: list[Recipe]) -> list[dg.AssetsDefinition]:
    """One asset for each recipe."""
    return [lineage_report(recipe) for recipe in recipes]


def checks(recipes: list[Recipe]) -> list[dg.AssetChecksDefinition]:
    """Whether a checkpoint still stands on documents that may be used."""

    def nothing_withdrawn(recipe: Recipe) -> dg.AssetChecksDefinition:
        @dg.asset_check(asset=["midtrained_checkpoint", recipe.name], name="nothing_withdrawn_was_read")
        def check(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
            """No document that the newest checkpoint was trained on has been withdrawn since."""
            found = since(lake, recipe.name)
            return dg.AssetCheckResult(
                passed=not found,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"takedowns": dg.MetadataValue.json(found), "tokens": sum(mark["tokens"] for mark in found)},
            )

        return check

    return [nothing_withdrawn(recipe) for recipe in recipes]
