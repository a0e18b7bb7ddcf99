"""Which class makes which kind of document. A new kind: a settings class in the project, a class here, a line below."""

from typing import Any

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project import generators as settings
from midtrain_dagster.sandbox import Sandbox
from midtrain_dagster.synthesize.code_evolution import CodeEvolving
from midtrain_dagster.synthesize.evolution import MathEvolution
from midtrain_dagster.synthesize.extraction import Extracting
from midtrain_dagster.synthesize.generator import Generator, Tools
from midtrain_dagster.synthesize.language import language_identifier
from midtrain_dagster.synthesize.long_context import LongAsking
from midtrain_dagster.synthesize.questions import SentenceQuestions, WrittenPairs
from midtrain_dagster.synthesize.rewriting import ConversationWriting, InstructionWriting, Rewriting, TextbookWriting
from midtrain_dagster.synthesize.rules import LongAssembly, Middles, NaturalPairs
from midtrain_dagster.synthesize.trajectories import TrajectoryWriting
from midtrain_dagster.synthesize.translating import ImageDescribing, Translating

KINDS: dict[type[settings.GeneratorBase], type[Any]] = {
    settings.Rewrite: Rewriting,
    settings.Questions: WrittenPairs,
    settings.Instructions: InstructionWriting,
    settings.Textbook: TextbookWriting,
    settings.Conversation: ConversationWriting,
    settings.Translation: Translating,
    settings.Images: ImageDescribing,
    settings.Extraction: Extracting,
    settings.Evolution: MathEvolution,
    settings.CodeEvolution: CodeEvolving,
    settings.Trajectories: TrajectoryWriting,
    settings.FillInTheMiddle: Middles,
    settings.LongDocuments: LongAssembly,
    settings.LongQuestions: LongAsking,
    settings.Natural: NaturalPairs,
}


def outfit(chosen: settings.GeneratorBase, allow_unisolated: bool = False) -> Tools:
    """What a generator needs beside its teacher: language identification, and the sandbox where it runs what was written.

    Raises MidtrainError where nothing isolates on this machine and `allow_unisolated` is false.
    """
    runs = isinstance(chosen, settings.CodeEvolution) or (isinstance(chosen, settings.Evolution) and chosen.run_code)
    writes = isinstance(chosen, settings.Written)
    return Tools(Sandbox.find(allow_unisolated) if runs else None, language_identifier() if writes else None)


def make(chosen: settings.GeneratorBase, tools: Tools | None = None) -> Generator:
    """The generator that the project file describes.

    Raises MidtrainError for one whose check needs a tool that is not there (a sandbox, language identification).
    """
    if isinstance(chosen, settings.Questions) and chosen.answers == "sentences":
        return SentenceQuestions(chosen, tools)
    if type(chosen) not in KINDS:
        raise MidtrainError(f"no generator of kind {getattr(chosen, 'kind', type(chosen).__name__)}")
    made: Generator = KINDS[type(chosen)](chosen, tools)
    return made
