"""`midtrain rate`: raters over documents in plain files."""

import heapq
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from midtrain_dagster.commands import console, teachers
from midtrain_dagster.errors import MidtrainError

if TYPE_CHECKING:
    from midtrain_dagster.project.raters import Examples
    from midtrain_dagster.project.raters import Rater as RaterSettings
    from midtrain_dagster.rate.learn import Learnt
    from midtrain_dagster.rate.rate import Rater

KINDS = ("fasttext", "edu", "qurater", "perplexity", "dsir", "classifier")
KEPT = (".npy", ".safetensors")  # what dsir and heads have learnt
EXPECTED = f"NAME=KIND, NAME=KIND:MODEL or NAME=KIND:MODEL#LABEL with KIND one of {', '.join(KINDS)}"


class Asked(NamedTuple):
    """A rater as the command line names it."""

    name: str
    kind: str
    model: str | None
    label: str | None


class Means(NamedTuple):
    """What raters may need: to learn from, to learn with, to run on."""

    inputs: Sequence[Path]
    positives: Sequence[Path]
    negatives: Sequence[Path]
    preset: str | None
    teacher: str
    teacher_options: Sequence[str]
    judgements: int
    encoder: str
    max_tokens: int
    min_words: int
    device: str
    seed: int
    out: Path


def register(app: typer.Typer) -> None:
    """Add this stage's commands."""

    @app.command("rate")
    def rate_command(
        inputs: Annotated[list[Path], typer.Option("--in", help="Documents: JSONL or Parquet, files or directories.")],
        out: Annotated[Path, typer.Option(help="Where ratings.parquet goes, and what raters learn.")],
        rater: Annotated[list[str], typer.Option(help=f"{EXPECTED}; a qurater's NAME is its criterion.")],
        positives: Annotated[list[Path] | None, typer.Option(help="Documents like which fasttext and dsir rate high.")] = None,
        negatives: Annotated[list[Path] | None, typer.Option(help="Ordinary documents, for fasttext and dsir.")] = None,
        preset: Annotated[str | None, typer.Option(help="Hyper-parameters of fastText: dclm or webinstruct.")] = None,
        teacher: Annotated[
            str,
            typer.Option(
                help=f"edu and qurater without a MODEL learn from it, else they are the published ones. {teachers.NAMED}"
            ),
        ] = "",
        teacher_option: Annotated[list[str] | None, typer.Option(help="Teacher setting, key=value; repeatable.")] = None,
        judgements: Annotated[int, typer.Option(help="Documents (edu), or pairs (qurater), that it judges.", min=1)] = 2000,
        encoder: Annotated[str, typer.Option(help="Under heads: packaged, a directory or a hub name.")] = "packaged",
        max_tokens: Annotated[int, typer.Option(help="How much of a document a model reads.", min=2)] = 512,
        min_words: Annotated[int, typer.Option(help="Shortest document that dsir rates.", min=1)] = 100,
        device: Annotated[str, typer.Option(help="Where models run: cpu, cuda.")] = "cpu",
        seed: Annotated[int, typer.Option(help="For training.")] = 0,
    ) -> None:
        """Score documents with one or more raters; train those that need it."""
        from midtrain_dagster import files
        from midtrain_dagster.rate.rate import rate

        started = time.monotonic()
        asked = [_asked(word) for word in rater]
        means = Means(
            *(inputs, positives or [], negatives or [], preset, teacher, teacher_option or [], judgements),
            *(encoder, max_tokens, min_words, device, seed, out),
        )
        trained: dict[str, Any] = {}
        raters = [_rater(one, means, trained) for one in asked]
        progress = console.progress("rate", "documents")
        counts = {"documents": 0, "rejected": 0}
        unrated = dict.fromkeys([one.name for one in asked], 0)
        with files.ParquetSink(out / "ratings.parquet") as sink, files.ParquetSink(out / "rejected_records.parquet") as lost:
            for batch in files.read(inputs):
                scores = rate(batch.documents, raters, progress)
                sink.write(scores)
                lost.write(batch.rejected)
                counts["documents"] += len(scores)
                counts["rejected"] += len(batch.rejected)
                unrated = {name: count + scores[name].null_count() for name, count in unrated.items()}
        progress.close()
        told = {"unrated": unrated, "versions": {one.name: one.version for one in raters}, "trained": trained}
        console.result({**counts, **told, "seconds": round(time.monotonic() - started, 3)})


def _asked(word: str) -> Asked:
    name, _, rest = word.partition("=")
    kind, _, model = rest.partition(":")
    model, _, label = model.partition("#")
    if not name.isidentifier() or kind not in KINDS:
        raise MidtrainError(f"--rater {word}: expected {EXPECTED}")
    return Asked(name, kind, model or None, label or None)


def _rater(asked: Asked, means: Means, trained: dict[str, Any]) -> "Rater":
    """Load or train one rater; what training found goes into `trained`."""
    from midtrain_dagster.project.project import EmbedderSettings
    from midtrain_dagster.project.raters import learns
    from midtrain_dagster.rate.learn import FILE
    from midtrain_dagster.rate.make import make
    from resources.embedder import embedder

    if asked.kind == "dsir" and asked.model:
        from midtrain_dagster.rate.dsir import Dsir

        return Dsir.load(asked.name, Path(asked.model), means.min_words)
    settings = _settings(asked, means)
    encoder = embedder(EmbedderSettings(model=means.encoder))
    if not learns(settings):
        return make(settings, encoder, device=means.device)
    if asked.model:
        return make(settings, encoder, Path(asked.model))
    place = means.out / asked.name
    place.mkdir(parents=True, exist_ok=True)
    learnt = _learnt(settings, means, encoder, place)
    kept = place / FILE[asked.kind]
    trained[asked.name] = {
        "model": str(kept),
        **{name.replace(" ", "_").replace("-", "_"): value for name, value in learnt.about.items()},
    }
    return make(settings, encoder, kept)


def _settings(asked: Asked, means: Means) -> "RaterSettings":
    """The entry that a project file would have for it."""
    from pydantic import TypeAdapter, ValidationError

    from midtrain_dagster.project.raters import Rater

    try:
        found: RaterSettings = TypeAdapter(Rater).validate_python(
            {"kind": asked.kind, "name": asked.name, **_values(asked, means)}
        )
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'][1:])) or asked.kind}: {e['msg']}" for e in error.errors()]
        raise MidtrainError(f"--rater {asked.name}={asked.kind}: {'; '.join(problems)}") from None
    return found


def _values(asked: Asked, means: Means) -> dict[str, Any]:
    """What that entry says, beside kind and name."""
    from midtrain_dagster.rate.published import FINEWEB_EDU, QURATER

    read, training = {"max_tokens": means.max_tokens}, {"seed": means.seed}
    own = Path(asked.model).suffix in KEPT if asked.model else bool(means.teacher)  # a head that was learnt, or will be
    match asked.kind:
        case "edu":
            model = None if own else asked.model or FINEWEB_EDU
            return {"model": model, "annotations": means.judgements, "training": training, **read}
        case "qurater":
            model = None if own else asked.model or QURATER
            return {"criterion": asked.name, "model": model, "pairs": means.judgements, "training": training, **read}
        case "perplexity" | "classifier" if asked.model is None:
            raise MidtrainError(f"--rater {asked.name}={asked.kind}: name the model, {asked.name}={asked.kind}:MODEL")
        case "perplexity":
            return {"model": asked.model, **read}
        case "classifier":
            return {"model": asked.model, "label": asked.label, **read}
        case "fasttext" if asked.model:
            return {"model": asked.model, "label": asked.label}
    if not (means.positives and means.negatives):
        said = "it learns from --positives and --negatives; give both, or name what was learnt"
        raise MidtrainError(f"--rater {asked.name}={asked.kind}: {said}, {asked.name}={asked.kind}:FILE")
    good, ordinary = ({"files": side} for side in (means.positives, means.negatives))
    if asked.kind == "dsir":
        return {"target": good, "raw": ordinary, "min_words": means.min_words}
    return {"positives": good, "negatives": ordinary, "training": {**training, "preset": means.preset}}


def _learnt(settings: "RaterSettings", means: Means, encoder: Any, place: Path) -> "Learnt":
    """Train a rater into `place`: from the examples, or from what the teacher says of the documents themselves."""
    from midtrain_dagster.project.raters import DsirRater, EduRater, FastTextRater, QuRater
    from midtrain_dagster.rate.learn import from_documents, from_teacher

    if isinstance(settings, FastTextRater | DsirRater):
        return from_documents(settings, _texts, place)
    assert isinstance(settings, EduRater | QuRater)
    from resources.teacher import answers

    opened = teachers.opened(means.teacher, list(means.teacher_options), means.out / "replies.sqlite")
    asking = console.progress(f"ask the teacher for {settings.name}", "answers")
    texts = _some(means.inputs, means.judgements, means.seed)
    learnt = from_teacher(settings, texts, answers(opened, f"rate/{settings.name}", asking), encoder, place)
    asking.close()
    return learnt


def _texts(side: "Examples") -> list[str]:
    """The texts of --positives or --negatives."""
    from midtrain_dagster import files

    return [text for batch in files.read(side.files) for text in batch.documents["text"].to_list()]


def _some(inputs: Sequence[Path], most: int, seed: int) -> list[str]:
    """At most so many of the documents' texts, chosen by hash of seed and id."""
    from hashlib import blake2b

    from midtrain_dagster import files

    def keyed(id: str) -> bytes:
        return blake2b(f"{seed}:{id}".encode(), digest_size=8).digest()

    rows = ((keyed(id), text) for batch in files.read(inputs) for id, text in batch.documents.select("id", "text").iter_rows())
    return [text for _, text in heapq.nsmallest(most, rows)]
