"""`midtrain mix`: documents to packed sequences, on plain files."""

import time
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this stage's commands."""
    app.command("mix")(mix)


def mix(
    in_: Annotated[list[Path], typer.Option("--in", help="Documents: JSONL or Parquet with id and text, or directories.")],
    tokenizer: Annotated[Path, typer.Option(help="Directory of a fast tokenizer.")],
    out: Annotated[Path, typer.Option(help="Directory for the packed sequences.")],
    selected: Annotated[
        Path | None, typer.Option(help="selected.parquet of `midtrain select`: what it keeps is mixed, as often as it says.")
    ] = None,
    sequence_length: Annotated[int, typer.Option(help="Tokens in a sequence.")] = 4096,
    budget_tokens: Annotated[int | None, typer.Option(help="Tokens to pack; default: most without repetition.")] = None,
    mixture: Annotated[Path | None, typer.Option(help="YAML with the mixture's settings.")] = None,
    method: Annotated[str, typer.Option(help="best_fit or concatenate.")] = "best_fit",
    mask_prompts: Annotated[bool, typer.Option(help="Leave prompts out of the loss.")] = False,
    max_padding: Annotated[
        float, typer.Option(help="best_fit cuts documents only where padding would exceed this share.")
    ] = 0.005,
    parse_special_tokens: Annotated[
        bool, typer.Option("--parse-special-tokens", help="Read <|im_start|> and the like as the token of that name.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(help="Which documents are taken, and the order of the sequences; default: the settings', or 0."),
    ] = None,
) -> None:
    """Divide a token budget among components, choose documents, and pack them into sequences."""
    from midtrain_dagster.commands import console
    from midtrain_dagster.mix.run import mix_files
    from midtrain_dagster.recipes.mixture import Mixture, Packing

    started = time.monotonic()
    settings = Mixture.read(mixture) if mixture else Mixture()
    chosen = settings.seed if seed is None else seed
    changed = {**settings.model_dump(), "seed": chosen}
    if budget_tokens is not None:
        changed["budget_tokens"] = budget_tokens
    packing = {
        "sequence_length": sequence_length,
        "method": method,
        "mask_prompts": mask_prompts,
        "max_padding": max_padding,
        "parse_special_tokens": parse_special_tokens,
        "seed": chosen,
    }
    counts = mix_files(
        in_,
        tokenizer,
        out,
        Mixture.check(changed, where="mix"),
        Packing.check(packing, where="mix"),
        console.progress("tokenize", "tokens"),
        console.progress("pack", "tokens"),
        selected,
    )
    console.result({**counts, "seconds": round(time.monotonic() - started, 2)})
