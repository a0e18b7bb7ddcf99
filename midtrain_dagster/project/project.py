"""A project: what `midtrain.yaml` says. Sources, generators, benchmarks, teacher, and where everything is kept."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.benchmarks import Benchmark
from midtrain_dagster.project.cleaning import Cleaning
from midtrain_dagster.project.coordination import Coordination
from midtrain_dagster.project.deduplication import Deduplication
from midtrain_dagster.project.generators import GeneratorSettings
from midtrain_dagster.project.operations import Operations
from midtrain_dagster.project.raters import Rater
from midtrain_dagster.project.sources import Source
from midtrain_dagster.project.teacher import TeacherSettings
from midtrain_dagster.settings import Settings

FILE = "midtrain.yaml"
VARIABLE = "MIDTRAIN_PROJECT"
SECRET = ("secret", "access_key", "account_key", "token", "password", "sas_key", "service_account_key")
Step = Literal["deduplicate", "decontaminate", "rate"]


class Curation(Settings):
    """The order of the steps between cleaning and selection, and which documents go on to the next, dearer one."""

    order: tuple[Step, ...] = Field(("deduplicate", "decontaminate", "rate"), description="each of the three, once")
    gates: dict[Step, str] = Field(
        {}, description="step → SQL condition over what earlier steps measured; who fails it is not measured"
    )

    @model_validator(mode="after")
    def _complete(self) -> "Curation":
        if sorted(self.order) != ["decontaminate", "deduplicate", "rate"]:
            raise ValueError("order must name deduplicate, decontaminate and rate, each once")
        return self


class EmbedderSettings(Settings):
    """The sentence encoder."""

    model: str = Field("packaged", description="packaged (all-MiniLM-L6-v2), fake, a directory, or a hub name")
    batch_size: int = Field(64, ge=1)
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 where the processor multiplies it natively"
    )


class Compute(Settings):
    """Where work runs."""

    kind: Literal["local", "ray"] = Field("local", description="this machine, or an existing Ray cluster (extra `ray`)")
    address: str = Field("auto", description="of the Ray cluster: auto, host:port, or ray://host:10001")
    shard: int = Field(2000, ge=1, description="documents that are worked on at a time; no result depends on it")
    workers: int = Field(2, ge=1, description="processes for work that shards")
    threads: int | None = Field(None, ge=1, description="of a training process; null: the cores that there are")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    launcher: Literal["local", "slurm", "ray"] = Field(
        "local", description="how a training starts: torchrun on this machine, torchrun under srun, or Ray Train"
    )
    nodes: int = Field(1, ge=1, description="machines of a training (slurm)")
    devices: int | None = Field(
        None, ge=1, description="ranks on each machine (ray: in all); null: the GPUs of this machine, one on a CPU"
    )
    launch_options: tuple[str, ...] = Field(
        (), description="slurm: options of srun, such as --partition=gpu; ray: at most one, the cluster's address"
    )
    head_room: float = Field(0.1, ge=0, lt=1, description="share of the memory that a measured batch leaves free")


class Embedded(Settings):
    """What the offline default makes for itself. Leave the section out when you bring sources of your own."""

    packages: tuple[str, ...] = Field(
        ("numpy", "scipy", "sklearn", "pandas"), description="whose documentation becomes a web site"
    )
    website: str = Field(".midtrain/embedded/website.warc.gz", description="where that is, as a crawl")
    benchmarks: str = Field(".midtrain/embedded/benchmarks", description="where the benchmark rows are")
    leaks: str = Field(".midtrain/embedded/leaks.jsonl", description="where the planted posts are")
    questions: int = Field(40, ge=1, description="seeded questions of each kind")
    planted: int = Field(12, ge=0, description="posts that quote a benchmark question")
    seed: int = 0


class Project(Settings):
    """The whole of `midtrain.yaml`."""

    name: str = "midtrain"
    storage: str = Field(".midtrain/lake", description="directory, relative to this file, or the URI of an object store")
    storage_options: dict[str, str] = Field({}, description="of the object store client; keys come from the environment")
    sources: tuple[Source, ...] = Field(min_length=1)
    generators: tuple[GeneratorSettings, ...] = ()
    cleaning: Cleaning = Cleaning()
    deduplication: Deduplication = Deduplication()
    raters: tuple[Rater, ...] = ()
    coordinated: tuple[Coordination, ...] = Field((), description="scores that several raters make together")
    benchmarks: tuple[Benchmark, ...] = ()
    curation: Curation = Curation()
    allow_unisolated: bool = Field(
        False, description="run generated code even where nothing isolates it; for machines that nobody will miss"
    )
    teacher: TeacherSettings | None = Field(None, description="needed by generators that ask a language model")
    embedder: EmbedderSettings = EmbedderSettings()
    compute: Compute = Compute()
    embedded: Embedded | None = Field(None, description="made by this project itself: web site, benchmark rows, planted leak")
    automatic: bool = Field(True, description="whether schedule and automation are on when the UI starts")
    operations: Operations = Operations()
    recipes: tuple[str, ...] = Field(("demo",), description="which are in the graph: names, or paths of YAML files")
    refresh: str = Field("0 3 * * *", description="cron line of the sources' schedule")

    @model_validator(mode="after")
    def _distinct(self) -> "Project":
        secret = sorted(key for key in self.storage_options if any(word in key.lower() for word in SECRET))
        if secret:
            raise ValueError(f"storage_options: {', '.join(secret)} is a secret; leave it out and set it in the environment")
        named = [entry.name for entry in (*self.sources, *self.generators)]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(f"two sources or generators are called {', '.join(twice)}")
        for name in named:
            if not name.replace("-", "_").isidentifier():
                raise ValueError(f"source name {name!r}: use letters, digits, - and _")
        return self

    @model_validator(mode="after")
    def _raters_known(self) -> "Project":
        raters = [rater.name for rater in self.raters]
        scores = [*raters, *(entry.name for entry in self.coordinated)]
        if twice := sorted({name for name in scores if scores.count(name) > 1}):
            raise ValueError(f"two raters or coordinated scores are called {', '.join(twice)}")
        for entry in self.coordinated:
            if unknown := [name for name in entry.raters if name not in raters]:
                raise ValueError(f"coordinated {entry.name}: no rater is called {', '.join(unknown)}")
        return self

    @property
    def document_sources(self) -> tuple[str, ...]:
        """Names of all that brings documents: sources, then generators."""
        return tuple(entry.name for entry in (*self.sources, *self.generators))


def path() -> Path:
    """The project file: what MIDTRAIN_PROJECT names, else midtrain.yaml here or in a directory above."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).resolve()
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / FILE).exists():
            return folder / FILE
    raise MidtrainError(f"there is no {FILE} here or above; run from a project, or name one with {VARIABLE}")


def load(file: Path | None = None) -> Project:
    """Read and check the project file; MidtrainError names what is wrong and where."""
    return Project.read(file or path())
