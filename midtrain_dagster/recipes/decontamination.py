"""What a run calls contaminated: the method, its thresholds, and what becomes of a hit."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from midtrain_dagster.settings import Settings

Method = Literal["ngram", "phi4", "idf", "hybrid", "embedding", "cascade"]
METHODS: tuple[Method, ...] = ("ngram", "phi4", "idf", "hybrid", "embedding", "cascade")


class Thresholds(Settings):
    """A document is contaminated when a match scores at least this. Published rules where there are any, else set by hand;

    `docs/decontamination.md` shows what each gives on planted questions.
    """

    ngram: float = Field(default=1.0, ge=0, le=1, description="share of the required shared run; 1 is the published rule")
    phi4: float = Field(default=0.5, ge=0, le=1, description="7-gram ratio; any 13-gram that is not allowed scores 1")
    idf: float = Field(default=0.8, ge=0, le=1, description="question-answer-passage score; OLMo ran .78 to .88")
    hybrid: float = Field(default=0.6, ge=0, le=1, description="longest common subsequence over the shorter of the two")
    embedding: float = Field(default=0.8, ge=0, le=1, description="cosine of a document window and a question")
    cascade: float = Field(default=0.5, ge=0, le=1, description="combined evidence of overlap, order, slots, answer and cosine")


class Cutting(Settings):
    """How the action `cut` takes a match out of a document: GPT-3's rule (2005.14165, appendix C), but the pieces stay one document."""

    margin: int = Field(default=200, ge=0, description="characters that go with a match on both sides, up to the end of a word")
    shortest: int = Field(
        default=200, ge=0, description="characters; a shorter piece between, before or after matches goes too"
    )
    pieces: int = Field(default=10, ge=1, description="a document that falls into more pieces is left out whole")


class Judge(Settings):
    """Which matches a language model, the project's teacher, is asked about (2311.04850: the best candidates alone)."""

    certain: float = Field(
        default=0.9, ge=0, le=1, description="matches of this score and above are not asked about, nor verbatim ones"
    )
    questions: int = Field(default=3, ge=1, description="asked about at most for one place of a document: the best matches")


class Decontamination(Settings):
    """The `decontamination:` section of a recipe."""

    method: Method = Field(default="cascade", description="which evidence decides")
    thresholds: Thresholds = Field(default=Thresholds(), description="per method, so that a change of method is one word")
    action: Literal["drop", "cut"] = Field(
        default="drop", description="leave the document out, or cut the matching span out of it"
    )
    cutting: Cutting = Field(default=Cutting(), description="of the action cut")
    allow_list: Path | None = Field(
        default=None,
        description="file of exceptions, one a line, relative to the project file: a document id, `id<TAB>question_id`, "
        "or a common n-gram in words",
    )
    ngram_rule: Literal["gpt3", "llama3"] = Field(
        default="gpt3",
        description="gpt3: any shared n-gram, n the 5th percentile of the benchmark's lengths within 8 to 13 (2005.14165); "
        "llama3: share of the question's words inside shared 8-grams (2407.21783)",
    )
    qwen_rule: bool = Field(default=False, description="hybrid also demands 13 common words, as Qwen2.5 (2412.15115) does")
    run_functions: bool = Field(
        default=True,
        description="cascade: functions of documents that resemble a programming question are run in the sandbox beside its "
        "solution, where this machine has an isolation; what they return tells a rewriting from another task",
    )
    judge: Judge | None = Field(
        default=None,
        description="ask the teacher about matches in doubt: a yes lifts their score to the threshold, a no brings it under; "
        "null: nobody is asked",
    )
    keep_above: float = Field(
        default=0.6, ge=0, le=1, description="matches scoring less than this share of the threshold are not kept"
    )

    @property
    def threshold(self) -> float:
        """The chosen method's threshold."""
        return float(getattr(self.thresholds, self.method))

    @property
    def floor(self) -> float:
        """The lowest score that is kept as evidence: a lower threshold would find nothing more."""
        return self.keep_above * self.threshold

    def evidence(self) -> dict[str, Any]:
        """What the evidence depends on: not what is done about it, and of the allow-list only its phrases."""
        return self.model_dump(mode="json", exclude={"action", "cutting", "allow_list"})

    def using(
        self, method: Method | None = None, threshold: float | None = None, allow_list: Path | None = None
    ) -> "Decontamination":
        """These settings with another method, threshold or allow-list: what a command's options change."""
        chosen: Method = method or self.method
        thresholds = self.thresholds if threshold is None else self.thresholds.model_copy(update={chosen: threshold})
        allowed = allow_list or self.allow_list
        return self.model_copy(update={"method": chosen, "thresholds": thresholds, "allow_list": allowed})
