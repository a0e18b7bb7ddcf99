"""`midtrain synthesize`: the stage on plain files."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midtrain_dagster.commands import console, teachers
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
        teacher: Annotated[str, typer.Option(help=teachers.NAMED)] = "",
        option: Annotated[list[str] | None, typer.Option("--option", "-o", help="Generator setting, key=value.")] = None,
        teacher_option: Annotated[list[str] | None, typer.Option(help="Teacher setting, key=value; repeatable.")] = None,
        limit: Annotated[int, typer.Option(help="Parents at most.")] = 100,
        cache: Annotated[Path | None, typer.Option(help="Store of replies; default OUT/replies.sqlite.")] = None,
        estimate_only: Annotated[
            bool, typer.Option("--estimate", help="Do a sample of the parents, say what all take, stop.")
        ] = False,
        allow_unisolated: Annotated[bool, typer.Option(help="Run generated code even where nothing isolates it.")] = False,
    ) -> None:
        """Documents written by a language model, or by rule, from other documents."""
        import polars as pl

        from midtrain_dagster import files
        from midtrain_dagster.synthesize.driver import check_answered, choose, estimate, summary
        from midtrain_dagster.synthesize.driver import synthesize as run
        from midtrain_dagster.synthesize.kinds import make, outfit

        started = time.monotonic()
        settings = _generator(kind, option or [], limit)
        generator = make(settings, outfit(settings, allow_unisolated))
        batches = list(files.read(sources))
        rejected = pl.concat([batch.rejected for batch in batches])
        offered = pl.concat([batch.documents for batch in batches])
        asked = (
            teachers.opened(teacher, teacher_option or [], cache or out / "replies.sqlite") if generator.needs_teacher else None
        )
        told: dict[str, Any] = {"documents_read": len(offered), "records_rejected": len(rejected)}
        parents = choose(offered, generator, lambda pages: _recalled(pages, settings, asked, told))
        if asked is not None and (estimate_only or len(parents) > settings.sample):
            first = run(parents.head(settings.sample), generator, asked)
            check_answered(first)
            told["estimate"] = estimate(first, len(parents), asked.prices, asked.left())
            console.say(f"before the run: {told['estimate']['said']}")
        if estimate_only:
            console.result({**told, "seconds": round(time.monotonic() - started, 2)})
            return
        progress = console.progress("synthesize", "parents", len(parents))
        result = run(parents, generator, asked, progress, asked.window if asked is not None else 2048)
        progress.close()
        check_answered(result)
        results = {"documents": result.documents, "outcomes": result.outcomes, "requests": result.requests}
        for name, frame in {**results, "rejected_records": rejected}.items():
            with files.ParquetSink(out / f"{name}.parquet") as sink:
                sink.write(frame)
        console.result({**told, **summary(result), "seconds": round(time.monotonic() - started, 2)})


def _recalled(pages: Any, settings: "GeneratorBase", teacher: Any, told: dict[str, Any]) -> Any:
    """The pages that a generator's recall finds; all of them for one that has none."""
    from midtrain_dagster.synthesize.driver import where
    from midtrain_dagster.synthesize.recall import recalled

    recall = getattr(settings, "recall", None)
    if recall is None:
        return pages
    found, told["recall"] = recalled(pages, where(pages, recall.seeds, "--option recall: `seeds:"), recall, teacher)
    return found


def _generator(kind: str, options: list[str], limit: int) -> "GeneratorBase":
    from pydantic import ValidationError

    from midtrain_dagster.project.generators import GENERATOR

    try:
        return GENERATOR.validate_python({"kind": kind, "name": kind, "limit": limit, **teachers.pairs(options)})
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'kind'}: {e['msg']}" for e in error.errors()]
        raise MidtrainError(f"--option: {'; '.join(problems)}") from None
