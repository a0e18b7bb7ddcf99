"""`midtrain evaluate` and `midtrain compare`: the stage on plain files."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midtrain_dagster.commands import console

if TYPE_CHECKING:
    import polars as pl

    from midtrain_dagster.recipes.evaluation import Evaluation


def register(app: typer.Typer) -> None:
    """Add this stage's commands."""
    app.command("evaluate")(evaluate)
    app.command("compare")(compare)


def evaluate(
    model: Annotated[
        str, typer.Option("--model", help="Directory in the Hugging Face layout, a name on the hub, or openai:URL#name.")
    ],
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks", help="Benchmarks, separated by commas: gsm8k,arc,mmlu_anatomy,scrolls. `--tasks list` names them all."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Directory for results.json, samples.parquet and not_run.json.")],
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="Directory of benchmark rows (gsm8k_test.jsonl and so on), or one file; may be repeated."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="First so many questions of each subtask.")] = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="YAML file with the keys of a recipe's `evaluation`.")
    ] = None,
    num_fewshot: Annotated[
        int | None, typer.Option("--num-fewshot", min=0, help="Shots, in place of the convention of each benchmark.")
    ] = None,
    max_gen_toks: Annotated[int | None, typer.Option("--max-gen-toks", min=1, help="Cap on generated tokens.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="For a served model: directory or hub name of its tokenizer, for scoring.")
    ] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Ask the Hugging Face hub for rows that --data has not.")] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Say how it goes on standard error.")] = True,
) -> None:
    """Score a model on benchmarks. Run again after a kill: it goes on where it was."""
    from midtrain_dagster.evaluate.evaluate import evaluate as score
    from midtrain_dagster.recipes.evaluation import Evaluation

    started = time.monotonic()
    if tasks.strip() == "list":
        return console.result(_catalog())
    watch = console.progress("evaluate", "requests") if progress else None
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    chosen = _settings(Evaluation.read(settings) if settings else Evaluation(), names, num_fewshot, max_gen_toks, tokenizer)
    place: Path | str = Path(model) if Path(model).is_dir() else model
    done = score(place, names, data, out, settings=chosen, limit=limit, hub=hub, progress=watch)
    if watch is not None:
        watch.close()
    return console.result(
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


def _catalog() -> dict[str, Any]:
    """Every benchmark: domain, conventional shots, metric, names of its files, paper."""
    from midtrain_dagster.evaluate.catalog import CATALOG
    from midtrain_dagster.evaluate.names import ALIASES, GROUPS

    told = {
        name: {
            "domain": b.domain,
            "num_fewshot": b.num_fewshot,
            "metric": b.metric,
            "files": list(b.sets[:2]),
            "paper": b.about,
        }
        for name, b in CATALOG.items()
    }
    return {"benchmarks": told, "groups": {name: list(members) for name, members in GROUPS.items()}, "other names": ALIASES}


def _settings(
    settings: "Evaluation", names: list[str], num_fewshot: int | None, max_gen_toks: int | None, tokenizer: str | None
) -> "Evaluation":
    """The settings with what was said on the command line."""
    from midtrain_dagster.evaluate.names import named
    from midtrain_dagster.recipes.evaluation import Task

    said = {"max_gen_toks": max_gen_toks, "tokenizer": tokenizer}
    settings = settings.model_copy(update={name: value for name, value in said.items() if value is not None})
    if num_fewshot is None:
        return settings
    known = {member: task for task in settings.tasks for member in named(task.name)}
    asked = [member for name in names for member in named(name)]
    tasks = tuple(
        (known.get(name) or Task(name=name)).model_copy(update={"name": name, "num_fewshot": num_fewshot}) for name in asked
    )
    return settings.model_copy(update={"tasks": tasks})


def _brief(name: str, about: dict[str, object], results: dict[str, dict[str, dict[str, object]]]) -> dict[str, object]:
    metric = str(about["metric"])
    scores = results["groups"].get(name) or results["results"].get(name) or results["results"].get(str(about["task"])) or {}
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
    from midtrain_dagster.evaluate.verdicts import Judging

    started = time.monotonic()
    samples = []
    for path in (base, mid):
        if not (path / "samples.parquet").exists():
            raise MidtrainError(f"{path}: no samples.parquet here; `midtrain evaluate --out {path}` writes it")
        samples.append(pl.read_parquet(path / "samples.parquet"))
    leaked: pl.DataFrame | list[str] = pl.read_parquet(contaminated) if contaminated else []
    table = comparison.compare(samples[0], samples[1], leaked, Judging(confidence))
    domains = compare_domains(samples[0], samples[1], leaked, Judging(confidence))
    changed = comparison.changes(samples[0], samples[1])
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        table.write_parquet(out / "comparison.parquet")
        domains.write_parquet(out / "domains.parquet")
        changed.write_parquet(out / "changes.parquet")
        (out / "scores.png").write_bytes(score_plot(table))
    _tell(table, domains, changed)
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


def _tell(table: "pl.DataFrame", domains: "pl.DataFrame", changed: "pl.DataFrame") -> None:
    """For people: a line a benchmark and measure, a line a domain, and the questions that changed most."""
    from rich.table import Table
    from rich.text import Text

    from midtrain_dagster.evaluate.report.words import change, score

    colours = {"gained": "green", "lost": "red"}
    shown = Table(
        "benchmark", "metric", "questions", "base", "mid-trained", "change", "interval", "verdict", "without contaminated"
    )
    for row in (*table.iter_rows(named=True), *domains.iter_rows(named=True)):
        metric = row["metric"]
        interval = f"{change(row['low'], metric)} … {change(row['high'], metric)}"
        clean = f"−{row['set_aside']}: {row['clean_verdict']}" if row["set_aside"] else ""
        shown.add_row(
            row.get("benchmark") or f"domain {row['domain']}",
            metric,
            str(row["questions"]),
            score(row["base"], metric),
            score(row["mid"], metric),
            change(row["difference"], metric),
            interval,
            Text(row["verdict"], colours.get(row["verdict"], "")),
            clean + (" (the gain disappears)" if row["gain_disappears"] else ""),
        )
    terminal = console.terminal()
    terminal.print(shown)
    terminal.print("The largest changes:" if changed.height else "No question changed.")
    for row in changed.iter_rows(named=True):
        bits = f"right answer {_number(row['gold_bits'])} → {_number(row['mid_gold_bits'])} bits"
        say = f"  {row['benchmark']} {row['question_id'][:8]}: score {_number(row['score'])} → {_number(row['mid_score'])}, {bits}"
        said = f"    before: {_short(row['output'])} | after: {_short(row['mid_output'])} | right: {_short(row['gold'])}"
        for line in (say, said):
            terminal.print(line, markup=False, highlight=False)


def _short(text: str | None) -> str:
    return "–" if text is None else " ".join(text.split())[:60]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
