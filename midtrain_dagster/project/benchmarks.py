"""The question sets that a project must not train on, and is measured with."""

from pathlib import Path

from pydantic import Field, model_validator

from midtrain_dagster.settings import Settings


class Benchmark(Settings):
    """One question set: files on disk, or a data set on the Hugging Face hub."""

    name: str = Field(description="how reports call it")
    path: Path | None = Field(default=None, description="a JSONL, CSV or Parquet file, or a directory of them")
    hub: str | None = Field(default=None, description="a data set on the hub, as `openai/gsm8k`")
    subset: str | None = Field(default=None, description="the hub data set's configuration, as `main`")
    split: str = Field(default="test", description="the hub data set's split")
    mapping: dict[str, str] = Field(
        default_factory=dict,
        description="for layouts that are not known: question, answer, choices, passage → the row's field (dots reach into it)",
    )

    @model_validator(mode="after")
    def _one_place(self) -> "Benchmark":
        if (self.path is None) == (self.hub is None):
            raise ValueError(f"benchmark {self.name}: give either `path` or `hub`")
        return self
