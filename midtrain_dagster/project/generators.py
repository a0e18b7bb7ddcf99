"""The project's generators: each is a source whose collector is a language model (or a rule), made from other sources.

One class a kind; `kind` in the project file chooses it. How a recipe weighs a generator's documents is the recipe's affair.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from midtrain_dagster.settings import Settings


class GeneratorBase(Settings):
    """What every generator has."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name of the source that its documents make.")
    parents: tuple[str, ...] = Field((), description="Sources whose documents it starts from; empty: all collected ones.")
    where: str = Field("true", description="SQL condition over documents and their attributes: which of them are parents.")
    limit: int | None = Field(1000, ge=1, description="Parents at most, the first by a hash of their id; null: all.")
    domain: str | None = Field(None, description="Domain of the new documents; null: that of the parent.")
    seed: int = Field(0, ge=0, description="Seed of all choices and of the sampling.")
    sample: int = Field(8, ge=1, description="Parents that are worked on first, to say what all of them will take.")


class Written(GeneratorBase):
    """What every generator that asks the teacher has."""

    max_tokens: int = Field(512, ge=8, description="Length of a reply at most; a reply cut off there is rejected.")
    temperature: float = Field(0.5, ge=0, description="Nemotron-CC: 0.5.")
    top_p: float = Field(0.9, gt=0, le=1, description="Nemotron-CC: 0.9.")
    parent_words: int = Field(350, ge=20, description="A parent is cut into passages of at most so many words.")
    passages: int = Field(1, ge=1, description="Passages of a parent that are used, from its beginning.")
    minimum_parent_words: int = Field(20, ge=1, description="Shorter parents are rejected.")


class Rewrite(Written):
    """Style rewriting: WRAP (arXiv:2401.16380), Nemotron-CC (arXiv:2412.02595)."""

    kind: Literal["rewrite"] = "rewrite"
    style: Literal["wikipedia", "easy", "hard", "qa", "distill", "knowledge", "list"] = Field(
        "wikipedia", description="WRAP's four styles; Nemotron-CC's distillate, extracted knowledge and knowledge list."
    )
    minimum_words: int = Field(15, ge=1, description="Shorter replies are rejected; Nemotron-CC: 50 tokens.")
    most_copied: float = Field(0.9, gt=0, le=1, description="Share of a reply's 8-word runs that may stand in the parent.")


class Questions(Written):
    """Diverse question–answer pairs from a passage (Nemotron-CC, arXiv:2412.02595)."""

    kind: Literal["questions"] = "questions"
    pairs: int = Field(3, ge=1, le=8, description="Pairs asked for from one passage.")
    answers: Literal["written", "sentences"] = Field(
        "written", description="written: the teacher writes them; sentences: each is a sentence of the parent (small teachers)."
    )
    example: bool = Field(True, description="Show one worked example first; small teachers need it.")
    append_to_parent: bool = Field(False, description="Put the pairs after the passage, as Nemotron-CC does.")
    grounding: float = Field(0.6, ge=0, le=1, description="Share of an answer's content words that the passage must contain.")
    max_tokens: int = Field(96, ge=8, description="Length of a reply at most; a last, cut pair is dropped.")
    temperature: float = Field(0.0, ge=0, description="Greedy keeps a small teacher on the text.")
    parent_words: int = Field(120, ge=20, description="A parent is cut into passages of at most so many words.")


class Instructions(Written):
    """An instruction that a passage answers, and the response (instruction back-translation, arXiv:2308.06259)."""

    kind: Literal["instructions"] = "instructions"
    grounding: float = Field(
        0.4, ge=0, le=1, description="Share of the response's content words that the passage must contain."
    )
    max_tokens: int = Field(256, ge=8, description="Length of a reply at most.")


class Textbook(Written):
    """A textbook section, tutorial or story on the parent's subject for an audience (Cosmopedia), seen by a persona
    (Persona Hub, arXiv:2406.20094)."""

    kind: Literal["textbook"] = "textbook"
    forms: tuple[str, ...] = Field(("textbook section", "tutorial", "blog post"), description="One is drawn for each parent.")
    audiences: tuple[str, ...] = Field(
        ("school children", "high-school students", "college students", "professionals of the field"),
        description="One is drawn for each parent.",
    )
    personas: tuple[str, ...] = Field((), description="Writers; one is drawn for each parent, none if empty.")
    minimum_words: int = Field(50, ge=1, description="Shorter replies are rejected.")


class Conversation(Written):
    """A conversation about the parent (MIND, arXiv:2410.12881): speakers between whom knowledge differs."""

    kind: Literal["conversation"] = "conversation"
    styles: tuple[
        Literal["two_students", "teacher_student", "two_professors", "debate", "problem_solving", "layman_expert", "interview"],
        ...,
    ] = Field(("two_students", "teacher_student", "layman_expert", "interview"), description="One is drawn for each parent.")
    minimum_words: int = Field(50, ge=1, description="Shorter conversations are rejected; MIND: 50 tokens.")
    minimum_turns: int = Field(3, ge=2, description="Fewer turns are rejected.")


class Translation(Written):
    """Translation into another language, checked by identifying the language and by translating back."""

    kind: Literal["translation"] = "translation"
    to: str = Field(description="ISO 639-1 code of the target language.")
    language_name: str = Field(description="The language as the teacher knows it, such as `Swahili`.")
    back_translation: bool = Field(True, description="Translate back and compare with the parent.")
    agreement: float = Field(0.3, ge=0, le=1, description="F1 of content words between the parent and its translation back.")


class Images(Written):
    """Dense descriptions and question–answer pairs of pictures, from picture and caption."""

    kind: Literal["images"] = "images"
    image_key: str = Field(
        "image", description="Key in the parent's metadata that holds a path, URL or data URI of the picture."
    )
    folder: str = Field(".", description="Directory of the pictures that are files; none outside it is read and sent.")
    minimum_words: int = Field(20, ge=1, description="Shorter descriptions are rejected.")


class Recall(Settings):
    """WebInstruct's recall (MAmmoTH2, arXiv:2405.03548): pages like the seeds, from hosts that the teacher finds useful."""

    seeds: str = Field(description="SQL condition, as `where`: pages that are known to hold questions with answers.")
    most: int = Field(100_000, ge=1, description="Pages of either side to learn from, drawn by a hash of their id.")
    threshold: float = Field(0.5, ge=0, le=1, description="Probability from which a page is recalled.")
    host_pages: int = Field(1000, ge=1, description="Recalled pages from which the teacher is asked about a host.")
    training: dict[str, float] = Field({}, description="fastText settings other than the paper's (small data: minCount: 1).")


class Extraction(Written):
    """WebInstruct: recall, extract, refine (MAmmoTH2, arXiv:2405.03548)."""

    kind: Literal["extraction"] = "extraction"
    recall: Recall | None = Field(None, description="Which pages to extract from; null: all that `where` names.")
    grounding: float = Field(
        0.6, ge=0, le=1, description="Share of the extracted pair's content words that the page must contain."
    )
    refine: bool = Field(True, description="Let the teacher add the missing steps; the final answer must stay.")


class Evolution(Written):
    """MathGenie (arXiv:2402.16352): solution augmentation, question back-translation, verification."""

    kind: Literal["evolution"] = "evolution"
    rounds: int = Field(1, ge=1, description="How often a solution is augmented again.")
    samples: int = Field(3, ge=1, description="Solutions sampled for each new question.")
    agreement: float = Field(0.5, gt=0, le=1, description="Share of the samples that must end in the same answer.")
    run_code: bool = Field(True, description="Also ask for a program, run it in the sandbox, and require the same answer.")
    temperature: float = Field(0.7, ge=0, description="Samples must differ to be compared.")


class CodeEvolution(Written):
    """Evol-Instruct for code (WizardCoder, arXiv:2306.08568), kept only where tests pass in the sandbox."""

    kind: Literal["code_evolution"] = "code_evolution"
    operations: tuple[Literal["constraint", "requirement", "reasoning", "erroneous", "complexity"], ...] = Field(
        ("constraint", "requirement", "reasoning", "complexity"), description="One is drawn for each parent."
    )
    timeout: float = Field(10.0, gt=0, description="Seconds that a solution and its tests may run.")


class Trajectories(Written):
    """Tool use: plan, call, observation, answer; calls are executed on simulated tools, so that observations are true."""

    kind: Literal["trajectories"] = "trajectories"
    tools: tuple[Literal["calculator", "convert_units", "lookup", "search", "calendar"], ...] = Field(
        ("calculator", "lookup", "search"), description="Simulated tools offered; lookup and search know the parent's text."
    )
    turns: int = Field(4, ge=1, description="Calls at most.")


class FillInTheMiddle(GeneratorBase):
    """Fill-in-the-middle documents from code (arXiv:2207.14255); needs no teacher."""

    kind: Literal["fill_in_the_middle"] = "fill_in_the_middle"
    rate: float = Field(0.5, ge=0, le=1, description="Share of the parents that are made into one (OLMo 3: half of the code).")
    spm_rate: float = Field(0.5, ge=0, le=1, description="Of these, the share in suffix–prefix–middle order.")
    level: Literal["character", "line"] = Field("character", description="Where a document may be cut.")
    prefix_token: str = Field("<fim_prefix>", description="The tokenizer's mark before the prefix.")
    suffix_token: str = Field("<fim_suffix>", description="The tokenizer's mark before the suffix.")
    middle_token: str = Field("<fim_middle>", description="The tokenizer's mark before the middle.")


class LongDocuments(GeneratorBase):
    """Long documents put together from related parents of one source and domain; needs no teacher."""

    kind: Literal["long_documents"] = "long_documents"
    words: int = Field(6000, ge=10, description="Length aimed at.")
    separator: str = Field("\n\n", description="What stands between two parts.")


class LongQuestions(Written):
    """Questions about one part of a long assembled context, placed anywhere in it."""

    kind: Literal["long_questions"] = "long_questions"
    words: int = Field(6000, ge=10, description="Length of the context.")
    grounding: float = Field(0.6, ge=0, le=1, description="Share of the answer's content words that the part must contain.")
    max_tokens: int = Field(96, ge=8, description="Length of a reply at most.")
    temperature: float = Field(0.0, ge=0, description="Greedy keeps a small teacher on the text.")
    parent_words: int = Field(120, ge=20, description="Words of the part that the question is about.")


class Natural(GeneratorBase):
    """Question–answer pairs that people wrote already: doctests, and question pages; needs no teacher."""

    kind: Literal["natural"] = "natural"
    forms: tuple[Literal["doctest", "marked"], ...] = Field(
        ("doctest", "marked"), description="doctest: `>>>` examples; marked: `Q:`/`A:` or Question/Answer lines."
    )


GeneratorSettings = Annotated[
    Rewrite
    | Questions
    | Instructions
    | Textbook
    | Conversation
    | Translation
    | Images
    | Extraction
    | Evolution
    | CodeEvolution
    | Trajectories
    | FillInTheMiddle
    | LongDocuments
    | LongQuestions
    | Natural,
    Field(discriminator="kind"),
]

GENERATOR: TypeAdapter[GeneratorSettings] = TypeAdapter(GeneratorSettings)
