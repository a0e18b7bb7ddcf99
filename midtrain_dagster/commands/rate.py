"""`midtrain rate`: raters over documents in plain files."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from midtrain_dagster.rate.rate import Rater

KINDS = ("fasttext", "edu", "perplexity", "dsir", "classifier")


class Asked(NamedTuple):
    """A rater as the command line names it: NAME=KIND or NAME=KIND:MODEL."""

    name: str
    kind: str
    model: str | None


def register(app: typer.Typer) -> None:
    """Add this stage's commands."""

    @app.command("rate")
    def rate_command(
        inputs: Annotated[list[Path], typer.Option("--in", help="Documents: JSONL or Parquet, files or directories.")],
        out: Annotated[Path, typer.Option(help="Where ratings.parquet goes.")],
        rater: Annotated[list[str], typer.Option(help=f"NAME=KIND[:MODEL], KIND one of {', '.join(KINDS)}.")],
        positives: Annotated[list[Path] | None, typer.Option(help="Documents like which fasttext and dsir rate high.")] = None,
        negatives: Annotated[list[Path] | None, typer.Option(help="Ordinary documents, for fasttext and dsir.")] = None,
        preset: Annotated[str | None, typer.Option(help="Hyper-parameters of fastText: dclm or webinstruct.")] = None,
        max_tokens: Annotated[int, typer.Option(help="How much of a document a model reads.", min=2)] = 512,
        min_words: Annotated[int, typer.Option(help="Shortest document that dsir rates.", min=1)] = 100,
        device: Annotated[str, typer.Option(help="Where models run: cpu, cuda.")] = "cpu",
        seed: Annotated[int, typer.Option(help="For training.")] = 0,
    ) -> None:
        """Score documents with one or more raters; train those that need it."""
        from midtrain_dagster import files
        from midtrain_dagster.commands import console
        from midtrain_dagster.rate.rate import rate

        started = time.monotonic()
        asked = [_asked(word) for word in rater]
        report: dict[str, Any] = {}
        examples = _Examples(positives, negatives)
        options = {"preset": preset, "max_tokens": max_tokens, "min_words": min_words, "device": device, "seed": seed}
        raters = [_rater(one, examples, options, out, report) for one in asked]
        progress = console.progress("rate", "documents")
        rated = rejected = 0
        unrated = dict.fromkeys([one.name for one in asked], 0)
        with files.ParquetSink(out / "ratings.parquet") as sink, files.ParquetSink(out / "rejected_records.parquet") as lost:
            for batch in files.read(inputs):
                scores = rate(batch.documents, raters, progress)
                sink.write(scores)
                lost.write(batch.rejected)
                rated, rejected = rated + len(scores), rejected + len(batch.rejected)
                unrated = {name: count + scores[name].null_count() for name, count in unrated.items()}
        progress.close()
        versions = {one.name: one.version for one in raters}
        seconds = round(time.monotonic() - started, 3)
        counts = {"documents": rated, "rejected": rejected, "unrated": unrated}
        console.result({**counts, "versions": versions, "trained": report, "seconds": seconds})


def _asked(word: str) -> Asked:
    from midtrain_dagster.errors import MidtrainError

    name, _, rest = word.partition("=")
    kind, _, model = rest.partition(":")
    if not name.isidentifier() or kind not in KINDS:
        raise MidtrainError(f"--rater {word}: expected NAME=KIND or NAME=KIND:MODEL with KIND one of {', '.join(KINDS)}")
    return Asked(name, kind, model or None)


class _Examples:
    """The texts of --positives and --negatives, read once when first wanted."""

    def __init__(self, positives: list[Path] | None, negatives: list[Path] | None):
        self._paths = {"positives": positives, "negatives": negatives}
        self._texts: dict[str, list[str]] = {}

    def __getitem__(self, side: str) -> list[str]:
        from midtrain_dagster import files
        from midtrain_dagster.errors import MidtrainError

        paths = self._paths[side]
        if not paths:
            raise MidtrainError(f"training this rater needs --{side}")
        if side not in self._texts:
            self._texts[side] = [text for batch in files.read(paths) for text in batch.documents["text"].to_list()]
        return self._texts[side]


def _rater(asked: Asked, examples: _Examples, options: dict[str, Any], out: Path, report: dict[str, Any]) -> "Rater":
    """Load or train one rater; what training found goes into `report`."""
    from midtrain_dagster.errors import MidtrainError

    name, kind, model = asked
    if kind == "fasttext":
        return _fasttext(asked, examples, options, out, report)
    if kind == "dsir":
        from midtrain_dagster.rate import dsir

        return dsir.fit(name, examples["positives"], examples["negatives"], min_words=options["min_words"])
    if kind == "edu":
        from midtrain_dagster.rate import edu

        return edu.published(name, model or edu.FINEWEB_EDU, options["max_tokens"], options["device"])
    if model is None:
        raise MidtrainError(f"--rater {name}={kind}: name the model, {name}={kind}:MODEL")
    if kind == "perplexity":
        from midtrain_dagster.rate.perplexity import Perplexity

        return Perplexity(name, model, options["max_tokens"], options["device"])
    from midtrain_dagster.rate.classifier import Classifier

    return Classifier(name, model, max_tokens=options["max_tokens"], device=options["device"])


def _fasttext(asked: Asked, examples: _Examples, options: dict[str, Any], out: Path, report: dict[str, Any]) -> "Rater":
    from midtrain_dagster.project.raters import FastTextTraining
    from midtrain_dagster.rate import fasttext

    if asked.model:
        return fasttext.FastText(asked.name, Path(asked.model))
    training = FastTextTraining.check({"preset": options["preset"], "seed": options["seed"]}, where="--preset")
    path = out / f"{asked.name}.bin"
    trained = fasttext.train(examples["positives"], examples["negatives"], training, path)
    held = trained.held_out
    report[asked.name] = {
        "model": str(path),
        "trained_on": trained.trained_on,
        "held_out": held.examples,
        "average_precision": round(held.average_precision, 4),
        "expected_calibration_error": round(held.expected_calibration_error, 4),
    }
    return fasttext.FastText(asked.name, path, fasttext.POSITIVE)
