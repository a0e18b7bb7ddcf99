"""The project's teacher: which language model writes synthetic documents, where it runs and what it may cost."""

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from midtrain_dagster.settings import Settings


class Prices(Settings):
    """What the endpoint charges, in any one currency."""

    prompt: float = Field(default=0.0, ge=0, description="Price of a million prompt tokens.")
    completion: float = Field(default=0.0, ge=0, description="Price of a million completion tokens.")


class TeacherSettings(Settings):
    """A language model behind an OpenAI-compatible endpoint, or a local transformers model, or a scripted fake."""

    kind: Literal["local", "openai", "fake"] = Field(
        "local", description="local: transformers; openai: an endpoint; fake: tests."
    )
    model: str = Field("", description="Name of the model at the endpoint, or the directory of a local one.")
    base_url: str | None = Field(None, description="The endpoint, as http://127.0.0.1:8000/v1; null: the client's default.")
    api_key_env: str | None = Field("OPENAI_API_KEY", description="Environment variable that holds the key; null: needs none.")
    concurrency: int = Field(
        64, ge=1, le=1000, description="Requests in flight at most; fewer while the endpoint says to slow down."
    )
    timeout: float = Field(120.0, gt=0, description="Seconds until an attempt is given up.")
    retries: int = Field(6, ge=0, description="Further attempts after a refusal or a broken connection.")
    paid_retries: int = Field(
        2, ge=0, description="Of these, after an answer that we paid for and cannot use (garbled, too late)."
    )
    backoff: float = Field(0.5, gt=0, description="Seconds of the first wait; it doubles each time, with jitter, up to 30 s.")
    batch: bool = Field(False, description="Hand requests in by the endpoint's batch API: cheaper, and slower by hours.")
    batch_requests: int = Field(10_000, ge=1, le=50_000, description="Requests in one batch at most.")
    batch_poll: float = Field(30.0, gt=0, description="Seconds between two looks at a batch.")
    prices: Prices = Field(default_factory=Prices, description="Price table; zero for a model of one's own.")
    budget: float | None = Field(
        None, ge=0, description="All that may ever be spent through this cache, same currency. Stops before it is passed."
    )
    cache: Path | None = Field(None, description="SQLite file of all replies; null: the project's default place.")
    batch_size: int = Field(64, ge=1, description="Sequences generated together (local).")
    dtype: Literal["auto", "bfloat16", "float32", "float16"] = Field(
        "auto", description="Arithmetic of the local model; auto: bfloat16 where the device is fast at it, else float32."
    )
    device: str = Field("cpu", description="Where the local model runs: cpu, cuda, cuda:1.")
    script: dict[str, str] = Field(default_factory=dict, description="fake: words in the last message, and the answer to them.")

    @field_validator("base_url")
    @classmethod
    def _no_secret_in_url(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).password:
            raise ValueError("a key does not belong into a URL; name its environment variable in api_key_env")
        return value

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.batch and self.kind != "openai":
            raise ValueError(f"a teacher of kind {self.kind} has no batch API")
        if self.kind != "fake" and not self.model:
            raise ValueError(f"a teacher of kind {self.kind} needs a model")
        return self
