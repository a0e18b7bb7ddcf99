"""Scale: small proxy runs of many mixtures, the laws fitted on them, and the mixture and budget that they recommend."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import polars as pl

from assets.outcome import AUTOMATION, OWNERS, markdown, of_artifact, plot, progress
from assets.reading import documents_of, selection_digest
from midtrain_dagster.artifacts import Artifact
from midtrain_dagster.code import code_version
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix import proxies as mixtures
from midtrain_dagster.mix.components import assign
from midtrain_dagster.mix.propose import confirmed, propose, regress
from midtrain_dagster.mix.tokens import TokenStore, load_tokenizer
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.recipes.scaling import Scaling
from midtrain_dagster.refresh import fingerprint
from midtrain_dagster.scale import proxies as laws
from midtrain_dagster.scale.measurements import areas
from midtrain_dagster.scale.stored import from_values, to_values
from midtrain_dagster.tables import digest
from midtrain_dagster.train.plan import Phase, TrainingPlan
from midtrain_dagster.train.proxy import ProxyShape, train_proxy
from resources.gpu import POOL, Gpu
from resources.lake import Lake

GROUP = "scale"
LOSS = "loss of "  # columns of the table of runs: this and the domain


class Run(NamedTuple):
    """One proxy run."""

    shares: dict[str, float]
    tokens: int
    shape: int
    seed: int


def section(recipe: Recipe) -> Scaling:
    """The recipe's scaling section; only recipes that have one get these assets."""
    if recipe.scaling is None:
        raise MidtrainError(f"recipe {recipe.name} has no section `scaling`")
    return recipe.scaling


def data_of(context: dg.AssetExecutionContext, lake: Lake, recipe: Recipe) -> Artifact:
    """What all proxy runs of a recipe share: a small tokenizer, a sample of its documents, its held-out documents packed."""
    settings = section(recipe)
    proxy = settings.proxy
    chosen = [
        recipe.mixture.model_dump(mode="json"),
        recipe.goal.model_dump(mode="json"),
        recipe.held_out.model_dump(mode="json"),
    ]
    mark = fingerprint(
        code_version("mix", "train"),
        chosen,
        [proxy.vocabulary, proxy.sequence_length, proxy.documents, settings.seed],
        selection_digest(lake, recipe.name),
    )

    def make(out: Path) -> tuple[str, dict[str, Any]]:
        from midtrain_dagster.train.tokenizer import train_tokenizer

        kept = documents_of(lake, recipe.name, kept=True).collect()
        sampled = mixtures.sample(assign(kept, recipe.mixture), proxy.documents, settings.seed)
        if not len(sampled):
            raise MidtrainError(
                f"recipe {recipe.name} keeps no document of any component; look at selected_documents/{recipe.name}"
            )
        shutil.rmtree(out / "tokens", ignore_errors=True)
        tokens = train_tokenizer(sampled["text"], proxy.vocabulary, out / "tokenizer")
        store = TokenStore(out / "tokens", load_tokenizer(out / "tokenizer"))
        store.add(sampled, progress(context, "tokenize", "tokens"))
        counted = store.count(sampled)
        there = mixtures.supply(counted)
        counted.drop("text", "metadata", "prompts", "offset").write_parquet(out / "documents.parquet")
        there.write_parquet(out / "supply.parquet")
        held = documents_of(lake, recipe.name, kept=False).collect()
        sets = {}
        for side, domains in (("general", recipe.goal.general), ("target", recipe.goal.target)):
            few = mixtures.held_out(held, domains, recipe.held_out.documents, recipe.held_out.characters)
            sets[side] = mixtures.pack_held_out(few, store, out / "validation" / side, proxy.sequence_length).digest
        return digest(counted.select("id", "text_hash", "component", "tokens")), {"vocabulary": tokens, "validation": sets}

    return lake.artifacts.build(
        f"proxy_data/{recipe.name}",
        mark,
        make,
        {f"selected_documents/{recipe.name}": lake.tables.version(f"selected_documents/{recipe.name}")},
    )[0]


def trained(lake: Lake, recipe: Recipe, data: Artifact, run: Run, threads: int) -> dict[str, Any]:
    """What one proxy run measured: trained now, or found where the same run was trained before, in whatever design."""
    settings = section(recipe)
    proxy = settings.proxy
    shape = proxy.shapes[run.shape]
    plan = TrainingPlan(
        "",
        "",
        "",
        peak_learning_rate=proxy.peak_learning_rate,
        schedule=(Phase("warmup", share=0.1), Phase("constant", share=0.4), Phase("linear")),
        batch_sequences=proxy.batch_sequences,
        micro_batch=proxy.batch_sequences,
        seed=run.seed,
        threads=threads,
    )
    shares = {name: round(share, 12) for name, share in sorted(run.shares.items())}
    mark = fingerprint(
        code_version("mix", "train"),
        data.fingerprint,
        [shares, run.tokens, shape.model_dump(), run.seed, proxy.max_repetition],
        json.loads(plan.to_json()) | {"threads": None},
    )

    def make(out: Path) -> tuple[str, dict[str, Any]]:
        from midtrain_dagster.train.schedule import timetable

        documents = pl.read_parquet(data.path / "documents.parquet")
        store = TokenStore(data.path / "tokens", load_tokenizer(data.path / "tokenizer"))
        packed = mixtures.pack_run(documents, shares, run.tokens, store, out / "packed", settings, run.seed)
        sets = {side: data.path / "validation" / side for side in laws.SIDES}
        summary = train_proxy(packed.path, sets, ProxyShape(shape.layers, shape.hidden, shape.heads), plan)
        rates = timetable(plan, packed.count).rates
        lr_area, annealing_area = areas(rates[int(rates.argmax()) :])  # from the peak on, as arXiv 2408.11029 counts
        shutil.rmtree(out / "packed")
        kept = {name: summary[name] for name in ("steps", "tokens", "parameters", "loss_start", "loss_end", "validation")}
        measured = kept | {"lr_area": float(lr_area[-1]), "annealing_area": float(annealing_area[-1]), "packed": packed.digest}
        (out / "run.json").write_text(json.dumps({"shares": shares, **measured}, indent=2))
        return fingerprint(measured), measured

    inputs = {f"proxy_data/{recipe.name}": data.fingerprint}
    return lake.artifacts.build(f"proxy_run/{recipe.name}", mark, make, inputs)[0].about


def row_of(
    name: str, role: str, run: Run, measured: dict[str, Any], fractions: Mapping[str, dict[str, float]]
) -> dict[str, Any]:
    """A row of the table of runs."""
    found: dict[str, Any] = {"run": name, "role": role, "seed": run.seed, "tokens": run.tokens, "size": measured["parameters"]}
    found |= {f"share of {component}": share for component, share in run.shares.items()}
    for side in laws.SIDES:
        sides = measured["validation"][side]
        found[f"{side}_share"] = sum(share * fractions[side].get(c, 0.0) for c, share in run.shares.items())
        found |= {f"{side}_loss": sides["after"]["loss"], f"{side}_start": sides["before"]["loss"]}
        found |= {LOSS + domain: loss for domain, loss in sides["after"]["components"].items()}
    return found | {"lr_area": measured["lr_area"], "annealing_area": measured["annealing_area"]}


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
    def asset(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], gpu: dg.ResourceParam[Gpu]
    ) -> dg.MaterializeResult:
        data = data_of(context, lake, recipe)
        mark = fingerprint(code_version("mix", "train"), settings.model_dump(mode="json"), data.fingerprint)

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            there = pl.read_parquet(data.path / "supply.parquet")
            baseline = mixtures.recipe_shares(there, recipe.mixture)
            design = mixtures.runs(there, baseline, settings)
            fractions = fractions_of(data, recipe)
            done = progress(context, "proxy runs", "runs", float(len(design)))
            rows = []
            for planned in design.iter_rows(named=True):
                run = Run(
                    {c: planned[c] for c in baseline if c in planned}, planned["tokens"], planned["shape"], planned["seed"]
                )
                measured = trained(lake, recipe, data, run, gpu.threads)
                rows.append(row_of(planned["run"], planned["role"], run, measured, fractions))
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


def fractions_of(data: Artifact, recipe: Recipe) -> dict[str, dict[str, float]]:
    """Side → component → which fraction of the component's tokens is of the side's domains."""
    documents = pl.read_parquet(data.path / "documents.parquet")
    sides = {"general": recipe.goal.general, "target": recipe.goal.target}
    return {side: mixtures.domain_fractions(documents, domains) for side, domains in sides.items()}


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
        from midtrain_dagster.scale.plots import iso_loss, law_fit

        fitted = laws_of(artifact, table)
        pictures = {}
        for side, law in fitted.items():
            at, losses = laws.measured(table, side)
            held = (table["role"] == "held_out").to_numpy()
            pictures[f"{side} loss over its share"] = plot(law_fit(law, at, losses, f"{side} loss", held))
            pictures[f"{side} loss over share and tokens"] = plot(
                iso_loss(law, laws.measured(laws.of_the_fit(table), side)[0], f"{side} loss")
            )
        found = pl.read_parquet(artifact.path / "predictions.parquet")
        errors = pl.read_parquet(artifact.path / "left_out.parquet")
        tables = {"left out": markdown(errors), "predicted and measured": markdown(found, rows=40)}
        return of_artifact(context, artifact, made, tables | pictures)

    return asset


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
            about = recommend(lake, recipe, data, table, gpu.threads)
            fitted = laws_of(law, table)
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


def recommend(lake: Lake, recipe: Recipe, data: Artifact, table: pl.DataFrame, threads: int) -> dict[str, Any]:
    """The proposal of the regression, its own proxy runs, and the shares that follow: the recipe's unless it won."""
    settings = section(recipe)
    names = [c.removeprefix("share of ") for c in table.columns if c.startswith("share of ")]
    domains = [c.removeprefix(LOSS) for c in table.columns if c.startswith(LOSS)]
    weights = mixtures.domain_weights(domains, recipe.goal.target, settings.target_weight)
    seen, judged = (table.filter(pl.col("role").is_in(roles)) for roles in (("fit", "repeat"), ("held_out",)))

    def columns(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        return frame.select(pl.col(f"share of {n}").alias(n) for n in names), frame.select(
            pl.col(LOSS + d).alias(d) for d in domains
        )

    regression = regress(*columns(seen), settings.model, bootstrap=10, folds=min(5, len(seen) // 2), seed=settings.seed)
    there = pl.read_parquet(data.path / "supply.parquet")
    baseline = mixtures.recipe_shares(there, recipe.mixture)
    most = max(settings.proxy.tokens)
    caps = mixtures.candidate_caps(there, recipe.mixture, mixtures.caps(there, most, settings.proxy.max_repetition))
    proposed = propose(
        regression, baseline, weights=weights.tolist(), caps=caps, kl=settings.kl, candidates=4000, seed=settings.seed
    )
    fixed = mixtures.weighted(columns(table.filter(pl.col("role") == "repeat"))[1], weights)
    found: dict[str, Any] = {
        "proposed shares": proposed.shares,
        "recipe's shares": proposed.baseline,
        "expected losses": proposed.expected,
        "recipe's expected losses": proposed.baseline_expected,
        "expected gain, nats": proposed.gain,
        "regression on held-out runs": mixtures.judged(regression, *columns(judged)),
    }
    if proposed.gain <= 0:
        return found | {"supported": False, "reason": "no mixture is expected to be better: the data does not support a change",
                        "shares": proposed.baseline}  # fmt: skip
    fractions = fractions_of(data, recipe)
    rows = []
    for number in range(settings.repeats):
        run = Run(proposed.shares, most, 0, settings.seed + number)
        rows.append(row_of(f"proposal-{number}", "proposal", run, trained(lake, recipe, data, run, threads), fractions))
    own = mixtures.weighted(columns(pl.DataFrame(rows, infer_schema_length=None))[1], weights)
    won, gain, width = confirmed(own.tolist(), fixed.tolist())
    verdict = "exceeds" if won else "does not exceed"
    reason = f"measured gain {gain:.4f} nats {verdict} the repeat noise of {width:.4f}"
    return found | {
        "measured gain, nats": gain,
        "repeat noise, nats": width,
        "supported": won,
        "reason": reason if won else f"{reason}: the data does not support a change",
        "shares": proposed.shares if won else proposed.baseline,
        "proposal's runs": [{k: r[k] for k in ("run", "seed", "general_loss", "target_loss")} for r in rows],
    }


def assets(project: Project, recipes: list[Recipe]) -> list[dg.AssetsDefinition]:
    """Three assets for each recipe that has a `scaling:` section."""
    return [build(recipe) for recipe in recipes if recipe.scaling for build in (proxy_runs, scaling_law, scaling_plan)]
