"""Cards: what a data set and a model are, for people and for programs, and what a recipe cost. In the group `audit`."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, of_artifact
from assets.reading import CUTS, selection_digest
from midtrain_dagster.audit import costs
from midtrain_dagster.audit.cards import Facts, croissant, data_card, model_card
from midtrain_dagster.audit.lineage import Node, place, tree
from midtrain_dagster.audit.takedown import marks
from midtrain_dagster.code import code_version
from midtrain_dagster.decontaminate.cutting import CUTS_SCHEMA
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.refresh import fingerprint
from midtrain_dagster.select.funnel import funnel
from midtrain_dagster.tables import Record
from resources.lake import Lake

GROUP = "audit"
DOCUMENTS = "documents.parquet"


def facts(lake: Lake, recipe: Recipe, project: Project) -> Facts:
    """What the cards of a recipe say, from the lake."""
    artifacts, name = lake.artifacts, recipe.name
    trained, packed = (artifacts.current(f"{stage}/{name}") for stage in ("midtrained_checkpoint", "packed_sequences"))
    report, mixture = artifacts.current(f"evaluation_report/{name}"), artifacts.current(f"mixture/{name}")
    root = tree(lake.tables, artifacts, f"midtrained_checkpoint/{name}")
    plan = trained.path / "plan.json"
    return Facts(
        recipe=name,
        description=recipe.description,
        goal=recipe.goal.model_dump(mode="json"),
        base=base_of(recipe),
        documents=packed_documents(lake, recipe)
        .group_by("source", "domain", "language", "license")
        .agg(documents=pl.len(), characters=pl.col("characters").sum(), cut_out=pl.col("cut_out").sum())
        .sort("source", "domain", "language", "license"),
        sources=sources(root, project),
        left=funnel(lake.tables.read(f"selected_documents/{name}"))
        .filter(~pl.col("kept"))
        .select("source", "rule", "documents"),
        mixture=pl.read_parquet(mixture.path / "mixture.parquet")
        .group_by("component", maintain_order=True)
        .agg(pl.col("share").first(), pl.col("tokens").sum()),
        training=trained.about,
        configuration=json.loads(plan.read_text()) if plan.exists() else {},
        comparison=pl.read_parquet(report.path / "comparison.parquet"),
        domains=pl.read_parquet(report.path / "domains.parquet"),
        contamination=lake.tables.read("contamination_report").select("benchmark", "questions", "found_in", "documents"),
        withdrawn=marks(lake.tables, name, trained, packed),
        versions=digests(root),
        costs=costs.total(costs.of_recipe(lake.ledger.lines(), name)),
    )


def base_of(recipe: Recipe) -> str:
    """The base model in words; a hub name where it has one."""
    match recipe.base.kind:
        case "packaged":
            return "HuggingFaceTB/SmolLM2-135M-Instruct"
        case "hub":
            return recipe.base.name
        case "local":
            return f"the model in {recipe.base.path}"
        case _:
            return "random weights"


def packed_documents(lake: Lake, recipe: Recipe) -> pl.DataFrame:
    """Every document that was packed, as it was at the version that selection read: what is left of it, and what was cut out."""
    packed = lake.artifacts.current(f"packed_sequences/{recipe.name}")
    mixture = lake.artifacts.get(f"mixture/{recipe.name}", str(packed.inputs[f"mixture/{recipe.name}"]))
    selected = f"selected_documents/{recipe.name}"
    at = int(mixture.inputs[selected]) if mixture else None
    record = next(iter(lake.tables.records(selected, at)))
    ids = pl.read_parquet(packed.path / "train" / DOCUMENTS).rename({"component": "component_name"})
    columns = ["id", "source", "domain", "language", "license", "url"]
    texts = lake.tables.scan("clean_documents", version=record.reads["clean_documents"])
    told = texts.select(*columns, whole=pl.col("text").str.len_chars())
    cut = cut_at(lake, recipe, record).lazy().select("id", "left").unique()
    rows = ids.lazy().select("id", "text_hash", "component_name").join(told, on="id", how="left").join(cut, on="id", how="left")
    left = rows.with_columns(characters=pl.coalesce("left", "whole")).with_columns(
        cut_out=pl.col("whole") - pl.col("characters")
    )
    return left.select(*columns, "text_hash", "component_name", "characters", "cut_out").sort("id").collect()


def cut_at(lake: Lake, recipe: Recipe, record: Record) -> pl.DataFrame:
    """What a selection cut out of its documents, by the version that it read: CUTS_SCHEMA."""
    table = f"{CUTS}/{recipe.name}"
    return lake.tables.read(table, version=record.reads[table]) if table in record.reads else pl.DataFrame(schema=CUTS_SCHEMA)


def sources(root: Node, project: Project) -> pl.DataFrame:
    """The leaves of a lineage that are sources."""
    kinds = {source.name: source.kind for source in project.sources} | {g.name: "synthetic" for g in project.generators}
    rows: dict[str, dict[str, Any]] = {}

    def walk(node: Node) -> None:
        if node.table == "raw_documents":
            name = node.name.rpartition("/")[2]
            licences = ", ".join(f"{licence} {count:,}" for licence, count in node.about.get("licences", {}).items())
            when = " to ".join(dict.fromkeys(time[:10] for time in node.about.get("retrieved", []) if time != "None"))
            about = {
                "kind": kinds.get(name, "removed"),
                "retrieved": when,
                "documents": node.about.get("rows"),
                "licences": licences,
            }
            rows[name] = {"source": name, **about}
        for child in node.inputs:
            walk(child)

    walk(root)
    return pl.DataFrame([rows[name] for name in sorted(rows)])


def digests(node: Node) -> dict[str, str]:
    """Table and source, or artifact, and version → digest, over the whole tree."""
    found = {f"{place(node)}@{node.version}": node.digest}
    for child in node.inputs:
        found |= digests(child)
    return found


def versions(lake: Lake, recipe: Recipe) -> list[Any]:
    """What the cards are made from: they are made again where any of it is other."""
    names = ("midtrained_checkpoint", "packed_sequences", "evaluation_report", "mixture")
    found = {name: lake.artifacts.current(f"{name}/{recipe.name}") for name in names}
    withdrawn = marks(lake.tables, recipe.name, found["midtrained_checkpoint"], found["packed_sequences"])
    digest = selection_digest(lake, recipe.name)
    return [[artifact.digest for artifact in found.values()], digest, [mark["takedown"] for mark in withdrawn]]


def card(kind: str, recipe: Recipe, project: Project) -> dg.AssetsDefinition:
    """`data_card`, with Croissant and a table of the documents, or `model_card`."""
    said = {
        "data_card": f"Data card (Hugging Face), Croissant and list of the documents that `{recipe.name}` trained on.",
        "model_card": f"Model card (Hugging Face) of `{recipe.name}`, its scores as model-index.",
    }

    @dg.asset(
        key=[kind, recipe.name],
        deps=[["evaluation_report", recipe.name], ["midtrained_checkpoint", recipe.name], ["packed_sequences", recipe.name]],
        group_name=GROUP,
        kinds={"markdown"},
        owners=OWNERS,
        code_version=code_version("audit"),
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=said[kind],
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        made_from = versions(lake, recipe)

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            told = facts(lake, recipe, project)
            if kind == "model_card":
                (out / "README.md").write_text(model_card(told), encoding="utf-8")
                return fingerprint("model", made_from), {"withdrawn": len(told.withdrawn)}
            documents = packed_documents(lake, recipe)
            documents.write_parquet(out / DOCUMENTS)
            content = (out / DOCUMENTS).read_bytes()
            files = [{"name": DOCUMENTS, "sha256": sha256(content).hexdigest(), "bytes": len(content)}]
            described = croissant(told, files, {name: str(dtype) for name, dtype in documents.schema.items()})
            (out / "croissant.json").write_text(json.dumps(described, indent=2, ensure_ascii=False), encoding="utf-8")
            (out / "README.md").write_text(data_card(told), encoding="utf-8")
            return fingerprint("data", made_from), {"documents": len(documents)}

        mark = fingerprint(code_version("audit"), kind, recipe.description, made_from)
        read = {name: lake.artifacts.current(name).fingerprint for name in (f"midtrained_checkpoint/{recipe.name}",)}
        artifact, made = lake.artifacts.build(f"{kind}/{recipe.name}", mark, make, read)
        body = (artifact.path / "README.md").read_text(encoding="utf-8").split("\n---\n", 1)[1]
        return of_artifact(context, artifact, made, {"card": dg.MetadataValue.md(body[:60_000])})

    return asset


def cost_report(recipe: Recipe) -> dg.AssetsDefinition:
    """The account of a recipe as a page."""

    @dg.asset(
        key=["cost_report", recipe.name],
        deps=[["evaluation_report", recipe.name]],
        group_name=GROUP,
        kinds={"html"},
        owners=OWNERS,
        code_version=code_version("audit", "ledger"),
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=f"What `{recipe.name}` cost by stage and asset, and for each point gained.",
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        report = lake.artifacts.current(f"evaluation_report/{recipe.name}")
        every = costs.of_recipe(lake.ledger.lines(), recipe.name)
        # Looking and finding nothing to do, and the writing of cards, do not make the page out of date.
        lines = every.filter((pl.col("outcome") != "up to date") & (pl.col("stage") != GROUP))
        mark = fingerprint(code_version("audit", "ledger"), report.fingerprint, lines.select("run", "asset", "at").rows())

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            gained, spent = costs.gains(report.path), costs.total(lines)
            (out / "costs.html").write_text(costs.page(recipe.name, lines, gained), encoding="utf-8")
            lines.write_parquet(out / "lines.parquet")
            shown = {name: float(spent.get(name) or 0) for name in ("money", "cpu_seconds", "gpu_seconds", "wall_seconds")}
            return fingerprint("costs", report.digest), shown

        read = {f"evaluation_report/{recipe.name}": report.fingerprint}
        artifact, made = lake.artifacts.build(f"cost_report/{recipe.name}", mark, make, read)
        return of_artifact(context, artifact, made, {"page": dg.MetadataValue.path(str(artifact.path / "costs.html"))})

    return asset


def assets(project: Project, recipes: list[Recipe]) -> list[dg.AssetsDefinition]:
    """Three assets for each recipe."""
    return [
        asset
        for recipe in recipes
        for asset in (card("data_card", recipe, project), card("model_card", recipe, project), cost_report(recipe))
    ]
