"""Which class makes which kind of document. A new kind: a settings class in the project, a class here, a line below."""

from typing import Any

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project import generators as settings
from midtrain_dagster.synthesize.code_evolution import CodeEvolving
from midtrain_dagster.synthesize.evolution import MathEvolution
from midtrain_dagster.synthesize.extraction import Extracting
from midtrain_dagster.synthesize.generator import Generator, Tools
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
