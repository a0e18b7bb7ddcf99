"""Audit: the lineage of each recipe's checkpoint, down to the sources and their licences."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from assets.outcome import AUTOMATION, OWNERS, markdown, of_artifact
from midtrain_dagster.audit.lineage import Node, lines, tree, values
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
            fingerprint(code_version("audit"), trained.fingerprint),
            make,
            {name: trained.fingerprint},
        )
        tree_text = (artifact.path / "lineage.txt").read_text()
        more = {"lineage": dg.MetadataValue.md(f"```\n{tree_text}```"), "sources": markdown(sources(artifact.path))}
        return of_artifact(context, artifact, made, more)

    return asset


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
