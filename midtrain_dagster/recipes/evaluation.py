"""What is measured before and after training, how exactly, and what counts as lost."""

from typing import Literal

from pydantic import Field

from midtrain_dagster.settings import Settings


class Task(Settings):
    """One benchmark, where it is to be run other than by convention. Whatever is set here is named in the result."""

    name: str = Field(description="Name in the catalog: gsm8k, arc_easy, humaneval, …")
    num_fewshot: int | None = Field(default=None, ge=0, description="Shots; None: the convention (METHODS of each benchmark).")
    limit: int | None = Field(
        default=None, ge=1, description="First so many questions of each subtask; None: the evaluation's."
    )
    generate: bool = Field(
        default=True, description="False: gold bits per byte alone, without generating answers (much cheaper)."
    )


class Evaluation(Settings):
    """The evaluation of one checkpoint and its comparison with the base."""

    tasks: tuple[Task, ...] = Field(default=(), description="Benchmarks; empty: bits per byte of held-out documents alone.")
    limit: int | None = Field(default=None, ge=1, description="First so many questions of each subtask; None: all.")
    hub: bool = Field(
        default=False,
        description="Ask the Hugging Face hub (or the mirror that HF_ENDPOINT names) for rows that are not on disk.",
    )
    gold_bits: bool = Field(
        default=True, description="Also bits per byte of every gold answer: the signal that small models do have."
    )
    bits_per_byte_domains: tuple[str, ...] = Field(
        default=(), description="Domains of held-out documents to score; empty: all."
    )
    window: int = Field(default=1024, ge=16, description="Tokens of context at most, in bits per byte of documents.")
    general: tuple[str, ...] = Field(default=("general",), description="Benchmark domains whose scores must not fall.")
    retention_tolerance: float = Field(default=0.02, ge=0, description="Fall of a general score, absolute, that is accepted.")
    confidence: float = Field(
        default=0.95, gt=0, lt=1, description="Level of intervals and, after Holm's correction, of verdicts."
    )
    unchanged_within: float = Field(
        default=0.02,
        ge=0,
        description="*unchanged*: the interval lies within so much of none; absolute for scores, relative for bits per byte.",
    )
    bootstrap: int = Field(default=10_000, ge=100, description="Resamples of questions for intervals.")
    precision: Literal["auto", "bfloat16", "float32", "float16"] = Field(
        default="auto", description="Weights and activations; auto: bfloat16 where the machine is fast at it, else float32."
    )
    batch_size: int = Field(default=16, ge=1, description="Prompts generated from together.")
    batch_tokens: int = Field(default=1024, ge=16, description="Tokens scored in one pass.")
    max_gen_toks: int | None = Field(default=None, ge=1, description="Cap on generated tokens; None: each benchmark's own.")
    repeats: int = Field(
        default=1, ge=1, description="Samples a code problem for pass@k; above 1 they are drawn at `temperature`."
    )
    temperature: float = Field(
        default=0.2, gt=0, description="Of sampling, where repeats is above 1 (2107.03374 takes .2 for pass@1)."
    )
    probe_lengths: tuple[int, ...] = Field(
        default=(), description="Lengths, in the model's tokens, of the `ruler` probes; empty: the rows that are given."
    )
    probes: int = Field(default=5, ge=1, description="Probes of each kind and length.")
    tokenizer: str | None = Field(
        default=None, description="For a served model (`openai:URL#name`): directory or hub name of its tokenizer, for scoring."
    )
    concurrent: int = Field(default=4, ge=1, description="Requests to a served model at a time.")
    parity_sample: int = Field(
        default=8, ge=0, description="Requests scored again one by one, to catch numbers that move with the batch."
    )
    curve_limit: int = Field(
        default=50, ge=1, description="First so many questions of each subtask, for models along the run (`snapshot_every`)."
    )
    seed: int = Field(default=1234, description="Of few-shot sampling (1234 is lm-evaluation-harness's) and resampling.")

    def subset(self) -> "Evaluation":
        """The same on the first `curve_limit` questions of each subtask, and never on more than the whole evaluation asks."""
        limits = {task.name: min(task.limit or self.limit or self.curve_limit, self.curve_limit) for task in self.tasks}
        tasks = tuple(task.model_copy(update={"limit": limits[task.name]}) for task in self.tasks)
        return self.model_copy(update={"tasks": tasks, "limit": min(self.limit or self.curve_limit, self.curve_limit)})
