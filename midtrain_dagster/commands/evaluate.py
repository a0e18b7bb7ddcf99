"""`midtrain evaluate` and `midtrain compare`: the stage on plain files."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from midtrain_dagster.commands import console


def register(app: typer.Typer) -> None:
    """Add this stage's commands."""
    app.command("evaluate")(evaluate)
    app.command("compare")(compare)


def evaluate(
    model: Annotated[
        str, typer.Option("--model", help="Directory in the Hugging Face layout, a name on the hub, or openai:URL#name.")
    ],
    tasks: Annotated[str, typer.Option("--tasks", help="Benchmarks, separated by commas: gsm8k,arc_easy,humaneval.")],
    out: Annotated[Path, typer.Option("--out", help="Directory for results.json, samples.parquet and not_run.json.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Directory of benchmark rows: gsm8k_test.jsonl and so on.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="First so many questions of each subtask.")] = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="YAML file with the keys of a recipe's `evaluation`.")
    ] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Ask the Hugging Face hub for rows that --data has not.")] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Say how it goes on standard error.")] = True,
) -> None:
    """Score a model on benchmarks. Run again after a kill: it goes on where it was."""
    from midtrain_dagster.evaluate.evaluate import evaluate as score
    from midtrain_dagster.recipes.evaluation import Evaluation

    started = time.monotonic()
    watch = console.progress("evaluate", "requests") if progress else None
    chosen = Evaluation.read(settings) if settings else Evaluation()
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    place: Path | str = Path(model) if Path(model).is_dir() else model
    done = score(place, names, data, out, settings=chosen, limit=limit, hub=hub, progress=watch)
    if watch is not None:
        watch.close()
    console.result(
        {
            "benchmarks": {
                name: _brief(name, about, done.results) for name, about in done.results["midtrain"]["benchmarks"].items()
            },
            "questions": done.samples["question_id"].n_unique(),
            "not_run": done.not_run,
            "out": str(out),
            "seconds": round(time.monotonic() - started, 2),
        }
    )


def _brief(name: str, about: dict[str, object], results: dict[str, dict[str, dict[str, object]]]) -> dict[str, object]:
    metric = str(about["metric"])
    scores = results["groups"].get(name) or results["results"].get(name) or {}
    bare, _, chosen = metric.partition(",")
    return {
        "metric": about["metric"],
        "score": scores.get(metric),
        "stderr": scores.get(f"{bare}_stderr,{chosen}"),
        "gold_bits_per_byte": about["gold_bits_per_byte"],
        "questions": about["questions"],
        "notes": about["notes"],
    }


def compare(
    base: Annotated[Path, typer.Argument(help="Directory that `midtrain evaluate` wrote for the base model.")],
    mid: Annotated[Path, typer.Argument(help="The same for the mid-trained model.")],
    contaminated: Annotated[
        Path | None,
        typer.Option("--contaminated", help="Parquet with `question_id`, or `benchmark` and `row`, of questions to set aside."),
    ] = None,
    confidence: Annotated[
        float, typer.Option("--confidence", min=0.5, max=0.9999, help="Level of intervals and verdicts.")
    ] = 0.95,
    out: Annotated[
        Path | None, typer.Option("--out", help="Directory for comparison.parquet, changes.parquet and the plots.")
    ] = None,
) -> None:
    """What the mid-trained model gained and lost, with and without contaminated questions, and the ten largest changes."""
    import polars as pl

    from midtrain_dagster.errors import MidtrainError
    from midtrain_dagster.evaluate import compare as comparison
    from midtrain_dagster.evaluate.domains import compare_domains
    from midtrain_dagster.evaluate.plots import score_plot

    started = time.monotonic()
    samples = []
    for path in (base, mid):
        if not (path / "samples.parquet").exists():
            raise MidtrainError(f"{path}: no samples.parquet here; `midtrain evaluate --out {path}` writes it")
        samples.append(pl.read_parquet(path / "samples.parquet"))
    leaked: pl.DataFrame | list[str] = pl.read_parquet(contaminated) if contaminated else []
    table = comparison.compare(samples[0], samples[1], leaked, confidence=confidence)
    domains = compare_domains(samples[0], samples[1], leaked, confidence=confidence)
    changed = comparison.changes(samples[0], samples[1])
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        table.write_parquet(out / "comparison.parquet")
        domains.write_parquet(out / "domains.parquet")
        changed.write_parquet(out / "changes.parquet")
        (out / "scores.png").write_bytes(score_plot(table))
    for row in (*table.iter_rows(named=True), *domains.iter_rows(named=True)):
        console.say(_told(row))
    console.say("the largest changes:")
    for row in changed.iter_rows(named=True):
        console.say(f"  {row['benchmark']} {row['question_id'][:8]}: {_number(row['score'])} → {_number(row['mid_score'])}")
        console.say(
            f"    before: {_short(row['output'])}    after: {_short(row['mid_output'])}    right: {_short(row['gold'])}"
        )
    console.result(
        {
            "comparisons": table.to_dicts(),
            "domains": domains.to_dicts(),
            "changes": changed.select(
                "benchmark", "question_id", "score", "mid_score", "gold_bits", "mid_gold_bits"
            ).to_dicts(),
            "seconds": round(time.monotonic() - started, 2),
        }
    )


def _told(row: dict[str, Any]) -> str:
    name = row.get("benchmark") or f"[{row['domain']}]"
    told = f"{name:<24} {row['metric']:<22} {_number(row['base'])} → {_number(row['mid'])}  {row['verdict']}"
    return told + (f"; without {row['set_aside']} contaminated: {row['clean_verdict']}" if row["set_aside"] else "")


def _short(text: str | None) -> str:
    return "–" if text is None else " ".join(text.split())[:60]


def _number(value: float | None) -> str:
    return "   –  " if value is None else f"{value:.4f}"
