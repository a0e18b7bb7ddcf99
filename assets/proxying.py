"""Proxy runs: what they are trained on, one run, the runs that a method asks for, and the proposal that follows."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import dagster as dg
import numpy as np
import polars as pl

from assets.outcome import progress
from assets.reading import documents_of, selection_digest
from midtrain_dagster.artifacts import Artifact
from midtrain_dagster.code import code_version
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix import methods, online
from midtrain_dagster.mix import proxies as mixtures
from midtrain_dagster.mix.components import assign
from midtrain_dagster.mix.propose import Proposal, confirmed, propose, regress, weigh
from midtrain_dagster.mix.tokens import TokenStore, load_tokenizer
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.recipes.scaling import Scaling
from midtrain_dagster.refresh import fingerprint
from midtrain_dagster.scale import proxies as laws
from midtrain_dagster.scale.measurements import areas
from midtrain_dagster.tables import digest
from midtrain_dagster.train.plan import Phase, TrainingPlan
from midtrain_dagster.train.proxy import ProxyShape, train_proxy
from resources.lake import Lake

LOSS = "loss of "  # columns of the table of runs: this and the domain
SHARE = "share of "  # and this and the component
SMALL = 128  # width up to which a second thread waits more than it works
SCHEDULES = {
    "whole": (Phase("warmup", share=0.1), Phase("constant", share=0.4), Phase("linear")),
    "trunk": (Phase("warmup", share=0.1), Phase("constant")),
    "anneal": (Phase("linear"),),
}


class Run(NamedTuple):
    """One proxy run. A `trunk` ends at its peak rate, and anneals go on from its model."""

    shares: dict[str, float]
    tokens: int
    shape: int
    seed: int
    kind: Literal["whole", "trunk", "anneal"] = "whole"


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


def plan_of(settings: Scaling, run: Run, threads: int) -> TrainingPlan:
    """How a run is trained."""
    proxy = settings.proxy
    return TrainingPlan(
        "",
        "",
        "",
        peak_learning_rate=proxy.peak_learning_rate,
        schedule=SCHEDULES[run.kind],
        batch_sequences=proxy.batch_sequences,
        micro_batch=proxy.batch_sequences,
        seed=run.seed,
        threads=threads if proxy.shapes[run.shape].hidden > SMALL else 1,
    )


class Desk:
    """What every run of a recipe needs at hand: lake, recipe, data, threads. Runs are kept by content: each is trained once,
    whatever design or method asks for it."""

    def __init__(self, lake: Lake, recipe: Recipe, data: Artifact, threads: int):
        self.lake, self.recipe, self.data, self.threads = lake, recipe, data, threads
        self.settings = section(recipe)
        self.validation = {side: data.path / "validation" / side for side in laws.SIDES}
        self.fractions = {
            side: mixtures.domain_fractions(pl.read_parquet(data.path / "documents.parquet"), domains)
            for side, domains in (("general", recipe.goal.general), ("target", recipe.goal.target))
        }
        self.there = pl.read_parquet(data.path / "supply.parquet")
        self.baseline = mixtures.recipe_shares(self.there, recipe.mixture)
        self.most = max(self.settings.proxy.tokens)

    def shape(self, number: int) -> ProxyShape:
        shape = self.settings.proxy.shapes[number]
        return ProxyShape(shape.layers, shape.hidden, shape.heads)

    def pack(self, run: Run, out: Path) -> Any:
        documents = pl.read_parquet(self.data.path / "documents.parquet")
        store = TokenStore(self.data.path / "tokens", load_tokenizer(self.data.path / "tokenizer"))
        return mixtures.pack_run(documents, _rounded(run.shares), run.tokens, store, out, self.settings, run.seed)

    def keep(self, run: Run, more: list[Any], make: Callable[[Path], tuple[str, dict[str, Any]]]) -> Artifact:
        """The artifact of a run; `more` is what decides it beside its mixture and its plan."""
        plan = json.loads(plan_of(self.settings, run, self.threads).to_json()) | {"threads": None}
        shape = self.settings.proxy.shapes[run.shape].model_dump()
        mark = fingerprint(
            code_version("mix", "train"),
            self.data.fingerprint,
            [_rounded(run.shares), run.tokens, shape, run.seed, self.settings.proxy.max_repetition, run.kind, *more],
            plan,
        )
        inputs = {f"proxy_data/{self.recipe.name}": self.data.fingerprint}
        return self.lake.artifacts.build(f"proxy_run/{self.recipe.name}", mark, make, inputs)[0]

    def run(self, run: Run, trunk: Artifact | None = None) -> Artifact:
        """One run and what it measured: trained now, or found. `trunk` is what an anneal goes on from."""

        def make(out: Path) -> tuple[str, dict[str, Any]]:
            from midtrain_dagster.train.schedule import timetable

            packed = self.pack(run, out / "packed")
            plan = plan_of(self.settings, run, self.threads)
            start, keep = trunk.path / "model" if trunk else None, out / "model" if run.kind == "trunk" else None
            summary = train_proxy(packed.path, self.validation, self.shape(run.shape), plan, start, keep)
            rates = timetable(plan, packed.count).rates
            lr_area, annealing_area = areas(rates[int(rates.argmax()) :])  # from the peak on, as arXiv 2408.11029 counts
            shutil.rmtree(out / "packed")
            kept = {name: summary[name] for name in ("steps", "tokens", "parameters", "loss_start", "loss_end", "validation")}
            measured = kept | {
                "lr_area": float(lr_area[-1]),
                "annealing_area": float(annealing_area[-1]),
                "packed": packed.digest,
            }
            (out / "run.json").write_text(json.dumps({"shares": _rounded(run.shares), **measured}, indent=2))
            return fingerprint(measured), measured

        return self.keep(run, [trunk.fingerprint] if trunk else [], make)

    def row(self, name: str, role: str, run: Run, trunk: Artifact | None = None) -> dict[str, Any]:
        """The row of a run in the table of runs."""
        return row_of(name, role, run, self.run(run, trunk).about, self.fractions)

    def caps(self) -> dict[str, float]:
        """Largest share of each component that both the proxies and the run itself allow."""
        own = mixtures.caps(self.there, self.most, self.settings.proxy.max_repetition)
        return mixtures.candidate_caps(self.there, self.recipe.mixture, own)


def _rounded(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: round(share, 12) for name, share in sorted(shares.items())}


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


def split(table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Shares by component, and losses by domain, of a table of runs."""
    names = [c for c in table.columns if c.startswith(SHARE)]
    losses = [c for c in table.columns if c.startswith(LOSS)]
    return table.select(pl.col(c).alias(c.removeprefix(SHARE)) for c in names), table.select(
        pl.col(c).alias(c.removeprefix(LOSS)) for c in losses
    )


def weights_of(desk: Desk, table: pl.DataFrame) -> np.ndarray:
    """Weight of each domain's loss in what is minimised."""
    return mixtures.domain_weights(split(table)[1].columns, desk.recipe.goal.target, desk.settings.target_weight)


def proposed(desk: Desk, table: pl.DataFrame) -> tuple[Proposal, dict[str, Any]]:
    """What the recipe's method proposes, with the losses that are expected of it; and the method's own evidence."""
    settings, goal = desk.settings, desk.recipe.goal
    method = methods.METHODS[settings.method]
    seen = table.filter(pl.col("role").is_in(("fit", "repeat")))
    shares, losses = split(seen)
    documents = pl.read_parquet(desk.data.path / "documents.parquet")
    parts = [mixtures.domain_fractions(documents, [d]) for d in losses.columns]
    own = np.array([[part.get(c, 0.0) for c in shares.columns] for part in parts])
    folds = min(5, len(seen) // 2)
    regression = regress(shares, losses, method.model, bootstrap=10, folds=folds, seed=settings.seed, own=own)
    weights = weights_of(desk, table).tolist()
    judged = mixtures.judged(regression, *split(table.filter(pl.col("role") == "held_out")))
    evidence: dict[str, Any] = {"regression": method.model, "regression on held-out runs": judged}
    general = methods.general_components(desk.recipe.mixture)
    if method.kind == "regression":
        found = propose(
            regression, desk.baseline, weights=weights, caps=desk.caps(), kl=settings.kl if method.regularised else 0.0,
            candidates=4000, seed=settings.seed, general=general,
            minimum_general_share=desk.recipe.mixture.minimum_general_share,
        )  # fmt: skip
        return found, evidence
    if method.kind == "rule":
        wanted = methods.by_rule(settings.method, desk.there, desk.recipe.mixture)
    elif method.kind == "law":
        law = settings.law.model_copy(update={"form": settings.method})
        at = laws.best_shares(table, laws.fit_laws(table, law)[0], settings.method, goal.tolerance, settings.target_weight)
        wanted = methods.by_side(desk.baseline, at["target_share"], at["general_share"], desk.fractions)
        evidence["law"] = at
    elif method.kind == "paired":
        wanted, evidence["anneals"] = annealed(desk, table)
    else:
        about = reweighted(desk).about
        wanted, evidence["DoReMi's weights"] = about["weights"], about["weights"]
    bent = methods.within({**dict.fromkeys(desk.baseline, 0.0), **wanted}, desk.caps(), desk.recipe.mixture, desk.baseline)
    return weigh(regression, bent, desk.baseline, weights=weights, seed=settings.seed), evidence


def annealed(desk: Desk, table: pl.DataFrame) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Microanneals: from one trunk, repeats of the baseline and one anneal for each ingredient; and the effect of each."""
    settings, anneal = desk.settings, desk.settings.microanneal
    tokens, caps, weights = anneal.tokens or desk.most // 2, desk.caps(), weights_of(desk, table)
    trunk = desk.run(Run(desk.baseline, desk.most, 0, settings.seed, "trunk"))
    rows = []

    def add(name: str, baseline: str | None, shares: dict[str, float], seed: int) -> None:
        row = desk.row(name, "anneal", Run(shares, tokens, 0, seed, "anneal"), trunk)
        losses = split(pl.DataFrame([row], infer_schema_length=None))[1]
        rows.append({"run": name, "baseline": baseline, "loss": float(mixtures.weighted(losses, weights)[0])})

    for number in range(settings.repeats):
        add(f"baseline-{number}", None, desk.baseline, settings.seed + number)
    for ingredient, own in desk.baseline.items():
        if own > 0:
            mixed = online.anneal_shares(desk.baseline, ingredient, anneal.share, caps.get(ingredient, 1.0))
            add(ingredient, "baseline-0", mixed, settings.seed)
    runs = pl.DataFrame(rows)
    noise = float(np.std(runs["loss"].head(settings.repeats).to_numpy(), ddof=1))
    effects = online.microanneals(runs, ["loss"], {"loss": noise})
    clear = {row["run"]: row["effect"] for row in effects.filter("clear").iter_rows(named=True)}
    return online.combine(desk.baseline, clear, anneal.share), effects.to_dicts()


def reweighted(desk: Desk) -> Artifact:
    """DoReMi: a reference on the baseline mixture, then a proxy on equal shares whose domain weights move."""
    rule = desk.settings.doremi
    names = {name: 1.0 for name, share in desk.baseline.items() if share > 0}
    equal = methods.within(names, desk.caps(), desk.recipe.mixture.model_copy(update={"minimum_general_share": 0.0}), names)
    reference = Run(desk.baseline, desk.most, 0, desk.settings.seed)
    run = Run(equal, desk.most, 0, desk.settings.seed)

    def make(out: Path) -> tuple[str, dict[str, Any]]:
        from midtrain_dagster.train.reweighted import train_reweighted

        plan = plan_of(desk.settings, run, desk.threads)
        first = desk.pack(reference, out / "reference")
        train_proxy(first.path, desk.validation, desk.shape(0), plan, keep=out / "model")
        packed = desk.pack(run, out / "packed")

        def update(weights: np.ndarray, excess: np.ndarray) -> np.ndarray:
            return online.doremi_step(weights, excess, rule.step_size, rule.smoothing)

        summary = train_reweighted(packed.path, desk.validation, desk.shape(0), plan, out / "model", update)
        for folder in ("reference", "packed", "model"):
            shutil.rmtree(out / folder)
        about = {name: summary[name] for name in ("weights", "steps", "tokens", "validation")}
        return fingerprint(about), about

    return desk.keep(run, ["doremi", _rounded(desk.baseline), rule.model_dump()], make)


def recommend(desk: Desk, table: pl.DataFrame) -> dict[str, Any]:
    """The method's proposal, its own proxy runs beside the recipe's, and the shares that follow: the recipe's unless it won."""
    settings = desk.settings
    method = methods.METHODS[settings.method]
    found, evidence = proposed(desk, table)
    weights = weights_of(desk, table)
    repeats = split(table.filter(pl.col("role") == "repeat"))[1]
    about: dict[str, Any] = {
        "method": settings.method,
        "paper": method.paper,
        "proposed shares": found.shares,
        "recipe's shares": found.baseline,
        "expected losses": found.expected,
        "recipe's expected losses": found.baseline_expected,
        "recipe's measured losses": repeats.mean().row(0, named=True),
        "expected gain, nats": found.gain,
        **evidence,
    }
    apart = max(abs(found.shares[n] - found.baseline[n]) for n in found.shares)
    if apart < 1e-6 or (method.kind == "regression" and found.gain <= 0):
        return about | {"supported": False, "reason": "no mixture is expected to be better: the data does not support a change",
                        "shares": found.baseline}  # fmt: skip
    runs = [Run(found.shares, desk.most, 0, settings.seed + number) for number in range(settings.repeats)]
    rows = [desk.row(f"proposal-{number}", "proposal", run) for number, run in enumerate(runs)]
    losses = split(pl.DataFrame(rows, infer_schema_length=None))[1]
    won, gain, width = confirmed(mixtures.weighted(losses, weights).tolist(), mixtures.weighted(repeats, weights).tolist())
    verdict = "exceeds" if won else "does not exceed"
    reason = f"measured gain {gain:.4f} nats {verdict} the repeat noise of {width:.4f}"
    return about | {
        "measured gain, nats": gain,
        "repeat noise, nats": width,
        "supported": won,
        "reason": reason if won else f"{reason}: the data does not support a change",
        "shares": found.shares if won else found.baseline,
        "measured losses": losses.mean().row(0, named=True),
        "proposal's runs": [{k: r[k] for k in ("run", "seed", "general_loss", "target_loss")} for r in rows],
    }
