"""Scale: small proxy runs of many mixtures, the laws fitted on them, and the mixture and budget that they recommend."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, markdown, of_artifact, plot, progress
from assets.proxying import Desk, Run, data_of, recommend, section
from midtrain_dagster.artifacts import Artifact
from midtrain_dagster.code import code_version
from midtrain_dagster.mix import proxies as mixtures
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.recipes.scaling import Scaling
from midtrain_dagster.refresh import fingerprint
from midtrain_dagster.scale import proxies as laws
from midtrain_dagster.scale.stored import from_values, to_values
from midtrain_dagster.tables import digest
from resources.gpu import POOL, Gpu
from resources.lake import Lake

GROUP = "scale"
OF_THE_DESIGN = {"proxy", "proxy_mixtures", "held_out", "repeats", "concentration", "seed"}


def design_of(settings: Scaling) -> dict[str, Any]:
    """The settings that decide which runs are trained; another law or method trains none of them again."""
    return settings.model_dump(mode="json", include=OF_THE_DESIGN)


def proxy_runs(recipe: Recipe) -> dg.AssetsDefinition:
    """A designed set of small mixtures, each trained, one after another."""
    settings = section(recipe)

    @dg.asset(
        key=["proxy_runs", recipe.name],
        deps=[["selected_documents", recipe.name]],
        group_name=GROUP,
        kinds={"torch", "polars"},
        owners=OWNERS,
        pool=POOL,
        code_version=code_version("mix", "train"),
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=f"Small models trained on different mixtures of recipe `{recipe.name}`'s components: shares and losses of each.",
    )
    @measured
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], gpu: dg.ResourceParam[Gpu]
    ) -> dg.MaterializeResult:
        data = data_of(context, lake, recipe)
        mark = fingerprint(code_version("mix", "train"), design_of(settings), data.fingerprint)

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            desk = Desk(lake, recipe, data, gpu.threads)
            design = mixtures.runs(desk.there, desk.baseline, settings)
            done = progress(context, "proxy runs", "runs", float(len(design)))
            rows = []
            for planned in design.iter_rows(named=True):
                shares = {c: planned[c] for c in desk.baseline if c in planned}
                run = Run(shares, planned["tokens"], planned["shape"], planned["seed"])
                rows.append(desk.row(planned["run"], planned["role"], run))
                done.advance(1)
            table = pl.DataFrame(rows, infer_schema_length=None)
            table.write_parquet(out / "runs.parquet")
            return digest(table), {
                "runs": len(table),
                "held out": len(table.filter(pl.col("role") == "held_out")),
                "tokens trained": int(table["tokens"].sum()),
                "parameters": sorted(set(table["size"].to_list())),
            }

        artifact, made = lake.artifacts.build(
            f"proxy_runs/{recipe.name}", mark, make, {f"proxy_data/{recipe.name}": data.fingerprint}
        )
        from midtrain_dagster.scale.plots import proxy_losses

        table = pl.read_parquet(artifact.path / "runs.parquet")
        return of_artifact(context, artifact, made, {"runs": markdown(table), "losses": plot(proxy_losses(table))})

    return asset


def scaling_law(recipe: Recipe) -> dg.AssetsDefinition:
    """Laws of general and of target loss, judged on runs that they have not seen."""
    settings = section(recipe)

    @dg.asset(
        key=["scaling_law", recipe.name],
        deps=[["proxy_runs", recipe.name]],
        group_name=GROUP,
        kinds={"scipy"},
        owners=OWNERS,
        code_version=code_version("scale"),
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=f"Laws of loss in share, tokens and size, fitted on the proxy runs of recipe `{recipe.name}`, with their errors.",
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        runs = lake.artifacts.current(f"proxy_runs/{recipe.name}")
        table = pl.read_parquet(runs.path / "runs.parquet")
        mark = fingerprint(code_version("scale"), settings.law.model_dump(mode="json"), runs.digest, recipe.goal.tolerance)

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            fitted, left_out = laws.fit_laws(table, settings.law)
            found = laws.predictions(table, fitted)
            left_out.write_parquet(out / "left_out.parquet")
            found.write_parquet(out / "predictions.parquet")
            values = {side: to_values(law) for side, law in fitted.items()}
            (out / "laws.json").write_text(json.dumps(values))
            for name, figure in pictures(table, fitted).items():
                figure.savefig(out / f"{name}.png", dpi=90)
            share = laws.critical(table, fitted, recipe.goal.tolerance)
            return fingerprint(values), {
                **{f"{side} law": law.form.name for side, law in fitted.items()},
                **{side: laws.about(law, table, side, left_out) for side, law in fitted.items()},
                "held-out mae, nats": laws.held_out_error(found),
                "critical general share": asdict(share),
            }

        artifact, made = lake.artifacts.build(
            f"scaling_law/{recipe.name}", mark, make, {f"proxy_runs/{recipe.name}": runs.fingerprint}
        )
        drawn = {name: plot(figure) for name, figure in pictures(table, laws_of(artifact, table)).items()}
        found = pl.read_parquet(artifact.path / "predictions.parquet")
        errors = pl.read_parquet(artifact.path / "left_out.parquet")
        tables = {"left out": markdown(errors), "predicted and measured": markdown(found, rows=40)}
        return of_artifact(context, artifact, made, tables | drawn)

    return asset


def pictures(table: pl.DataFrame, fitted: dict[str, Any]) -> dict[str, Any]:
    """Figures of the laws: loss over share with interval and held-out runs, and contours of equal loss over share and tokens."""
    from midtrain_dagster.scale.plots import iso_loss, law_fit

    found = {}
    held = (table["role"] == "held_out").to_numpy()
    for side, law in fitted.items():
        at, losses = laws.measured(table, side)
        found[f"{side} loss over its share"] = law_fit(law, at, losses, f"{side} loss", held)
        seen = laws.measured(laws.of_the_fit(table), side)[0]
        found[f"{side} loss over share and tokens"] = iso_loss(law, seen, f"{side} loss")
    return found


def laws_of(artifact: Artifact, runs: pl.DataFrame) -> dict[str, Any]:
    """The fitted laws of a `scaling_law` artifact."""
    values = json.loads((artifact.path / "laws.json").read_text())
    return {side: from_values(found, laws.measured(laws.of_the_fit(runs), side)[0]) for side, found in values.items()}


def scaling_plan(recipe: Recipe) -> dg.AssetsDefinition:
    """The proposal, put to the test: trained anew, with other seeds, beside the recipe's own mixture."""
    settings = section(recipe)

    @dg.asset(
        key=["scaling_plan", recipe.name],
        deps=[["scaling_law", recipe.name], ["proxy_runs", recipe.name]],
        group_name=GROUP,
        kinds={"torch", "scipy"},
        owners=OWNERS,
        pool=POOL,
        code_version=code_version("mix", "scale", "train"),
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=f"The mixture that the proxy runs of recipe `{recipe.name}` recommend, or that they support no change.",
    )
    @measured
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], gpu: dg.ResourceParam[Gpu]
    ) -> dg.MaterializeResult:
        runs = lake.artifacts.current(f"proxy_runs/{recipe.name}")
        law = lake.artifacts.current(f"scaling_law/{recipe.name}")
        data = data_of(context, lake, recipe)
        mark = fingerprint(
            code_version("mix", "scale", "train"), settings.model_dump(mode="json"), runs.digest, law.digest, data.fingerprint
        )

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            table = pl.read_parquet(runs.path / "runs.parquet")
            desk = Desk(lake, recipe, data, gpu.threads)
            about = {**told(settings, table), **recommend(desk, table)}
            fitted = laws_of(law, table)
            about["laws at the chosen mixture"] = laws.at_mixture(table, fitted, *chosen_runs(desk, table, about))
            plan = laws.goal_plan(table, fitted, settings.goal)
            about |= {"plan for the goal": asdict(plan) if plan else "the recipe's scaling section names no goal"}
            (out / "plan.json").write_text(json.dumps(about, indent=2))
            return fingerprint(about), about

        artifact, made = lake.artifacts.build(
            f"scaling_plan/{recipe.name}",
            mark,
            make,
            {f"proxy_runs/{recipe.name}": runs.fingerprint, f"scaling_law/{recipe.name}": law.fingerprint},
        )
        from midtrain_dagster.mix.plots import proposal

        return of_artifact(context, artifact, made, {"proposal": plot(proposal(artifact.about))})

    return asset


def told(settings: Scaling, table: pl.DataFrame) -> dict[str, Any]:
    """What a reader wants to know of the proxies."""
    return {
        "runs": len(table),
        "parameters": sorted(set(table["size"].to_list())),
        "tokens of a run": max(settings.proxy.tokens),
        "repeats": settings.repeats,
    }


def chosen_runs(desk: Desk, table: pl.DataFrame, about: dict[str, Any]) -> tuple[float, float, pl.DataFrame]:
    """General and target share of the chosen mixture, and its runs: the proposal's where it won, else the recipe's own."""
    if not about["supported"]:
        own = table.filter(pl.col("role") == "repeat")
        return float(own["general_share"][0]), float(own["target_share"][0]), own
    runs = pl.DataFrame(about["proposal's runs"])
    general, target = (
        sum(share * desk.fractions[side].get(c, 0.0) for c, share in about["shares"].items()) for side in laws.SIDES
    )
    return general, target, runs


def assets(project: Project, recipes: list[Recipe]) -> list[dg.AssetsDefinition]:
    """Three assets for each recipe that has a `scaling:` section."""
    return [build(recipe) for recipe in recipes if recipe.scaling for build in (proxy_runs, scaling_law, scaling_plan)]
