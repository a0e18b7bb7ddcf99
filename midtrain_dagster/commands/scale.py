"""`midtrain fit-law` and `midtrain fit-mixture`: laws and mixtures from a user's own measurements."""

import time
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this stage's commands."""
    app.command("fit-law")(fit_law)
    app.command("fit-mixture")(fit_mixture)


def fit_law(
    runs: Annotated[Path, typer.Option(help="Table of measurements; a row with an empty share is the start state.")],
    out: Annotated[Path, typer.Option(help="Directory for law.json, left_out.csv and predictions.csv.")],
    form: Annotated[
        str, typer.Option(help="auto, d_cpt, cmr, chinchilla_start, annealing, bimix, exponential or adaptation.")
    ] = "auto",
    predict: Annotated[Path | None, typer.Option(help="Table of points to predict.")] = None,
    share: Annotated[str | None, typer.Option(help="Column of the general share.")] = None,
    tokens: Annotated[str | None, typer.Option("--tokens", "--step", help="Column of tokens or steps.")] = None,
    size: Annotated[str | None, typer.Option(help="Column of the model size.")] = None,
    start: Annotated[str | None, typer.Option(help="Column of the start loss, where rows differ in it.")] = None,
    lr_area: Annotated[str | None, typer.Option(help="Column of the learning-rate area.")] = None,
    annealing_area: Annotated[str | None, typer.Option(help="Column of the annealing area.")] = None,
    loss: Annotated[list[str] | None, typer.Option(help="Column of a loss that falls in the share (repeatable).")] = None,
    domain_loss: Annotated[list[str] | None, typer.Option(help="Column of a loss that falls in 1 − share.")] = None,
    critical_share: Annotated[bool, typer.Option("--critical-share", help="Find the critical general share.")] = False,
    tolerance: Annotated[float, typer.Option(help="Rise of general loss that the critical share may bring, nats.")] = 0.0,
    bootstrap: Annotated[int, typer.Option(help="Refits for the intervals.")] = 100,
    seed: Annotated[int, typer.Option(help="Of starts and resampling.")] = 0,
) -> None:
    """Fit a scaling law of share, tokens and size to measured losses, and predict."""
    from midtrain_dagster.commands import console
    from midtrain_dagster.recipes.scaling import LawFit
    from midtrain_dagster.scale.files import fit_law_files

    started = time.monotonic()
    named = {"share": share, "tokens": tokens, "size": size, "start": start}
    named |= {"lr_area": lr_area, "annealing_area": annealing_area}
    losses = {**dict.fromkeys(loss or [], False), **dict.fromkeys(domain_loss or [], True)}
    settings = LawFit.check({"form": form.replace("-", "_"), "bootstrap": bootstrap, "seed": seed}, where="fit-law")
    report = fit_law_files(
        runs, predict, out, {k: v for k, v in named.items() if v}, losses, settings, tolerance if critical_share else None
    )
    console.result({**report, "out": str(out), "seconds": round(time.monotonic() - started, 2)})


def fit_mixture(
    mixtures: Annotated[list[str], typer.Option(help="Tables of shares, one row a run (repeatable, or comma-separated).")],
    losses: Annotated[list[str], typer.Option(help="Tables of losses of the same runs, in the same order.")],
    out: Annotated[Path, typer.Option(help="Directory for predictions.csv and mixture.json.")],
    target: Annotated[list[str] | None, typer.Option(help="Domain whose loss is predicted (repeatable); default: all.")] = None,
    predict: Annotated[Path | None, typer.Option(help="Table of shares to predict the losses of.")] = None,
    model: Annotated[
        str,
        typer.Option(
            help="stack, quadratic_sqrt, exponential, log_linear, linear, lightgbm or bimix; or by method: regmix, mixing_law, olmix."
        ),
    ] = "stack",
    key: Annotated[str, typer.Option(help="Column that joins shares to losses.")] = "index",
    share_prefix: Annotated[
        str | None, typer.Option(help="Prefix of share columns; default: what they have in common.")
    ] = None,
    bootstrap: Annotated[int, typer.Option(help="Refits on resampled runs, for intervals.")] = 20,
    kl: Annotated[float, typer.Option(help="Weight of the divergence from the mean mixture in the proposal.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Of resampling and search.")] = 0,
) -> None:
    """Regress per-domain losses on shares, predict new mixtures, and propose one where held-out runs support it."""
    from midtrain_dagster.commands import console
    from midtrain_dagster.mix.regression_files import fit_mixture_files

    started = time.monotonic()
    report = fit_mixture_files(
        [Path(p) for text in mixtures for p in text.split(",")],
        [Path(p) for text in losses for p in text.split(",")],
        out,
        targets=target or [],
        predict=predict,
        model=model,
        key=key,
        share_prefix=share_prefix,
        bootstrap=bootstrap,
        kl=kl,
        seed=seed,
    )
    console.result({**report, "out": str(out), "seconds": round(time.monotonic() - started, 2)})
