"""Mix: shares and token budgets of each recipe's components, and the packed sequences that training reads."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from assets.measure import measured
from assets.outcome import AUTOMATION, OWNERS, markdown, of_artifact, plot, progress
from assets.reading import documents_of, selection_digest
from midtrain_dagster.artifacts import Artifact
from midtrain_dagster.code import code_version
from midtrain_dagster.documents import text_hash
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix.components import assign, available
from midtrain_dagster.mix.mixture import mixture
from midtrain_dagster.mix.pack import pack
from midtrain_dagster.mix.tokens import TokenStore, load_tokenizer
from midtrain_dagster.progress import Progress
from midtrain_dagster.recipes.mixture import Component, Mixture, Packing
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.refresh import fingerprint
from midtrain_dagster.tables import digest
from resources.lake import Lake

GROUP = "mix"
POOL = "tokens"  # one writer at a time to the store of tokens


def store_of(lake: Lake, base: Artifact, packing: Packing) -> TokenStore:
    """Tokens by text, kept for all recipes with the same tokenizer."""
    tokenizer = base.path / "model"
    name = fingerprint(text_hash((tokenizer / "tokenizer.json").read_text()), packing.parse_special_tokens)
    return TokenStore(lake.cache_path("tokens") / name, load_tokenizer(tokenizer), packing.parse_special_tokens)


def mixed(recipe: Recipe) -> dg.AssetsDefinition:
    """Shares and budgets of a recipe's components."""
    proposed = [["scaling_plan", recipe.name]] if recipe.scaling else []

    @dg.asset(
        key=["mixture", recipe.name],
        deps=[["selected_documents", recipe.name], ["base_checkpoint", recipe.name], *proposed],
        group_name=GROUP,
        kinds={"polars"},
        owners=OWNERS,
        pool=POOL,
        code_version=code_version("mix", "sequences"),
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=f"What recipe `{recipe.name}` mixes: share, token budget and repetitions of each component.",
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        base = lake.artifacts.current(f"base_checkpoint/{recipe.name}")
        taken, inputs = planned(lake, recipe)
        mark = fingerprint(
            code_version("mix", "sequences"),
            recipe.mixture.model_dump(mode="json"),
            selection_digest(lake, recipe.name),
            base.digest,
            taken,
        )

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            counted = assigned(lake, recipe, base, progress(context, "tokenize", "tokens"))
            # The plan counted in its proxies' tokens: by the run's own count a share may exceed its cap by a little.
            table = mixture(available(counted, bool(recipe.mixture.language_quotas)), recipe.mixture, taken, bend=True)
            counted.write_parquet(out / "documents.parquet")
            table.write_parquet(out / "mixture.parquet")
            return digest(table) + digest(counted), {
                "budget tokens": int(table["tokens"].sum()),
                "available tokens": int(counted["tokens"].sum()),
                "components": table["component"].n_unique(),
            }

        artifact, made = lake.artifacts.build(
            f"mixture/{recipe.name}",
            mark,
            make,
            {
                f"selected_documents/{recipe.name}": lake.tables.version(f"selected_documents/{recipe.name}"),
                f"base_checkpoint/{recipe.name}": base.fingerprint,
                **inputs,
            },
        )
        from midtrain_dagster.mix.plots import shares

        table = pl.read_parquet(artifact.path / "mixture.parquet")
        return of_artifact(context, artifact, made, {"mixture": plot(shares(table)), "table": markdown(table)})

    return asset


def assigned(lake: Lake, recipe: Recipe, base: Artifact, counted: Progress) -> pl.DataFrame:
    """The documents that a recipe trains on, tokenized and counted, each with its component."""
    documents = documents_of(lake, recipe.name, kept=True).collect()
    if not len(documents):
        raise MidtrainError(f"recipe {recipe.name} keeps no document at all; look at selected_documents/{recipe.name}")
    store = store_of(lake, base, recipe.packing)
    store.add(documents, counted)
    return assign(store.count(documents.drop("text")), recipe.mixture).drop("metadata", "prompts", "offset")


def planned(lake: Lake, recipe: Recipe) -> tuple[dict[str, float] | None, dict[str, str | int]]:
    """Shares of the scaling plan where the recipe takes them and the data supports them; and the plan as an input."""
    if recipe.scaling is None or not recipe.scaling.use_plan:
        return None, {}
    name = f"scaling_plan/{recipe.name}"
    plan = lake.artifacts.current(name)
    said = json.loads((plan.path / "plan.json").read_text())
    return said["shares"] if said["supported"] else None, {name: plan.fingerprint}


def packed(recipe: Recipe) -> dg.AssetsDefinition:
    """Training sequences of a recipe, and one validation set for each domain."""

    @dg.asset(
        key=["packed_sequences", recipe.name],
        deps=[["mixture", recipe.name], ["selected_documents", recipe.name], ["base_checkpoint", recipe.name]],
        group_name=GROUP,
        kinds={"numpy"},
        owners=OWNERS,
        pool=POOL,
        code_version=code_version("mix", "sequences"),
        automation_condition=AUTOMATION,
        tags={"midtrain/recipe": recipe.name},
        description=f"Token sequences of recipe `{recipe.name}` in training order, with the document behind every span.",
    )
    @measured
    def asset(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        base = lake.artifacts.current(f"base_checkpoint/{recipe.name}")
        chosen = lake.artifacts.current(f"mixture/{recipe.name}")
        settings = recipe.packing
        mark = fingerprint(
            code_version("mix", "sequences"),
            settings.model_dump(mode="json"),
            recipe.seed,
            chosen.digest,
            base.digest,
            digest(documents_of(lake, recipe.name, kept=False).select("id", "text_hash").collect()),
        )

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            documents = pl.read_parquet(chosen.path / "documents.parquet").drop("tokens")
            table = pl.read_parquet(chosen.path / "mixture.parquet")
            store = store_of(lake, base, settings)
            counted = progress(context, "pack", "tokens", float(table["tokens"].sum()))
            done = pack(documents, table, store, out / "train", settings, recipe.seed, counted)
            done.left.write_parquet(out / "left.parquet")
            done.components.write_parquet(out / "components.parquet")
            sets = validation(lake, recipe, store, out / "validation")
            return done.sequences.digest, {
                "sequences": done.sequences.count,
                "tokens": done.tokens,
                "documents": done.documents,
                "padding": done.padding,
                "cut documents": done.cut_documents,
                "validation sequences": sets,
            }

        artifact, made = lake.artifacts.build(
            f"packed_sequences/{recipe.name}",
            mark,
            make,
            {f"mixture/{recipe.name}": chosen.fingerprint, f"base_checkpoint/{recipe.name}": base.fingerprint},
        )
        filled = pl.read_parquet(artifact.path / "components.parquet")
        left = pl.read_parquet(artifact.path / "left.parquet")
        return of_artifact(
            context, artifact, made, {"budget and what was packed": markdown(filled), "left unpacked": markdown(left)}
        )

    return asset


def validation(lake: Lake, recipe: Recipe, store: TokenStore, out: Path) -> dict[str, int]:
    """Held-out documents as sequences: `general` and `target`, by the recipe's goal; where it extends the context, `long` too,
    the longest ones, uncut. Returns how many sequences each has.
    """
    rows = documents_of(lake, recipe.name, kept=False).collect()
    found = {}
    everything = (*recipe.goal.general, *recipe.goal.target)
    sets = {"general": recipe.goal.general, "target": recipe.goal.target}
    for name, domains in (sets | {"long": everything} if recipe.training.context else sets).items():
        documents = rows.filter(pl.col("domain").is_in(list(domains)))
        ordered = documents.sort("id")
        if name == "long":
            ordered = ordered.sort(pl.col("text").str.len_chars(), descending=True, maintain_order=True)
        few = ordered.group_by("domain", maintain_order=True).head(recipe.held_out.documents)
        cut = pl.col("text") if name == "long" else pl.col("text").str.slice(0, recipe.held_out.characters)
        short = few.with_columns(cut, repetitions=pl.lit(1.0), component=pl.lit(name))
        short = short.with_columns(text_hash=pl.col("text").map_elements(text_hash, return_dtype=pl.String))
        if not len(short):
            raise MidtrainError(
                f"recipe {recipe.name} holds out no document of {', '.join(domains)}; lower held_out.one_in or add documents"
            )
        store.add(short)
        counted = store.count(short)
        settings = Mixture(components=[Component(name=name)], component_column="component", method="natural")
        table = mixture(available(counted), settings)
        done = pack(short.drop("text"), table, store, out / name, recipe.packing.model_copy(update={"mask_prompts": False}))
        found[name] = done.sequences.count
    return found


def assets(recipes: list[Recipe]) -> list[dg.AssetsDefinition]:
    """Two assets for each recipe."""
    return [build(recipe) for recipe in recipes for build in (mixed, packed)]


def checks(recipes: list[Recipe]) -> list[dg.AssetChecksDefinition]:
    """A mixture without tokens must not be trained on."""

    def not_empty(recipe: Recipe) -> dg.AssetChecksDefinition:
        @dg.asset_check(asset=["mixture", recipe.name], name="mixture_not_empty", blocking=True)
        def check(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
            """Every component of the mixture has tokens to give."""
            table = pl.read_parquet(lake.artifacts.current(f"mixture/{recipe.name}").path / "mixture.parquet")
            total = table.group_by("component").agg(pl.col("tokens").sum(), pl.col("available_tokens").first())
            empty = total.filter((pl.col("tokens") > 0) & (pl.col("available_tokens") == 0))["component"].to_list()
            budget = int(total["tokens"].sum())
            return dg.AssetCheckResult(
                passed=budget > 0 and not empty,
                metadata={"budget tokens": budget, "components without tokens": ", ".join(empty)},
            )

        return check

    return [not_empty(recipe) for recipe in recipes]
