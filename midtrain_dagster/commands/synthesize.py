"""`midtrain synthesize`: the stage on plain files."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midtrain_dagster.commands import console
from midtrain_dagster.errors import MidtrainError

if TYPE_CHECKING:
    from midtrain_dagster.project.generators import GeneratorBase


def register(app: typer.Typer) -> None:
    """Add this stage's commands."""

    @app.command()
    def synthesize(
        kind: Annotated[str, typer.Argument(help="Kind of generator: rewrite, questions, natural, fill_in_the_middle, …")],
        sources: Annotated[list[Path], typer.Option("--in", help="Files or directories of documents; repeatable.")],
        out: Annotated[Path, typer.Option("--out", help="Directory for documents, outcomes and rejected records.")],
        teacher: Annotated[str, typer.Option(help="local:DIR, openai:URL#MODEL, or fake; its key is in the environment.")] = "",
        option: Annotated[list[str] | None, typer.Option("--option", "-o", help="Generator setting, key=value.")] = None,
        teacher_option: Annotated[list[str] | None, typer.Option(help="Teacher setting, key=value; repeatable.")] = None,
        limit: Annotated[int, typer.Option(help="Parents at most.")] = 100,
        cache: Annotated[Path | None, typer.Option(help="Store of replies; default OUT/replies.sqlite.")] = None,
        estimate: Annotated[int, typer.Option(help="Only take so many parents; estimate tokens and cost of all.")] = 0,
    ) -> None:
        """Documents written by a language model, or by rule, from other documents."""
        import polars as pl

        from midtrain_dagster import files
        from midtrain_dagster.synthesize.driver import choose, extrapolate, summary
        from midtrain_dagster.synthesize.driver import synthesize as run
        from midtrain_dagster.synthesize.kinds import make

        started = time.monotonic()
        generator = make(_generator(kind, option or [], limit), _tools(kind))
        batches = list(files.read(sources))
        rejected = pl.concat([batch.rejected for batch in batches])
        offered = pl.concat([batch.documents for batch in batches])
        parents = choose(offered, generator)
        some = parents.head(estimate) if estimate else parents
        asked = _teacher(teacher, teacher_option or [], cache or out / "replies.sqlite") if generator.needs_teacher else None
        progress = console.progress("synthesize", "parents", len(some))
        result = run(some, generator, asked, progress)
        progress.close()
        for name, frame in (("documents", result.documents), ("outcomes", result.outcomes), ("rejected_records", rejected)):
            with files.ParquetSink(out / f"{name}.parquet") as sink:
                sink.write(frame)
        told: dict[str, Any] = {"documents_read": len(offered), "records_rejected": len(rejected), **summary(result)}
        if estimate:
            told["estimate"] = extrapolate(result, len(parents), asked.prices if asked is not None else None)
        console.result({**told, "seconds": round(time.monotonic() - started, 2)})


def _generator(kind: str, options: list[str], limit: int) -> "GeneratorBase":
    from pydantic import ValidationError

    from midtrain_dagster.project.generators import GENERATOR

    try:
        return GENERATOR.validate_python({"kind": kind, "name": kind, "limit": limit, **_pairs(options)})
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'kind'}: {e['msg']}" for e in error.errors()]
        raise MidtrainError(f"--option: {'; '.join(problems)}") from None


def _pairs(options: list[str]) -> dict[str, Any]:
    import yaml

    for option in options:
        if "=" not in option:
            raise MidtrainError(f"{option}: expected key=value")
    return {key: yaml.safe_load(value) for key, _, value in (option.partition("=") for option in options)}


def _teacher(named: str, options: list[str], cache: Path) -> Any:
    from midtrain_dagster.project.teacher import TeacherSettings
    from resources.teacher import teacher

    kind, _, place = named.partition(":")
    values: dict[str, Any] = {"kind": kind}
    if kind == "local":
        values |= {"model": place}
    elif kind == "openai":
        url, _, model = place.partition("#")
        values |= {"base_url": url or None, "model": model}
    elif kind != "fake":
        raise MidtrainError(f"--teacher {named or '(none)'}: expected local:DIR, openai:URL#MODEL or fake")
    settings: TeacherSettings = TeacherSettings.check({**values, **_pairs(options)}, "--teacher")
    return teacher(settings, cache)


def _tools(kind: str) -> Any:
    """The sandbox and language identification, where the kind of generator needs them."""
    from midtrain_dagster.synthesize.generator import Tools
    from midtrain_dagster.synthesize.language import language_identifier

    sandbox = None
    if kind in ("evolution", "code_evolution"):
        from midtrain_dagster.sandbox import Sandbox

        sandbox = Sandbox.find()
    return Tools(sandbox, language_identifier() if kind == "translation" else None)
