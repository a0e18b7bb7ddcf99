"""Which class makes which kind of document. A new kind: a settings class in the project, a class here, a line below."""

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project import generators as settings
from midtrain_dagster.synthesize.generator import Generator, Tools
from midtrain_dagster.synthesize.questions import SentenceQuestions, WrittenPairs


def make(chosen: settings.GeneratorBase, tools: Tools | None = None) -> Generator:
    """The generator that the project file describes."""
    match chosen:
        case settings.Questions(answers="sentences"):
            return SentenceQuestions(chosen, tools)
        case settings.Questions():
            return WrittenPairs(chosen, tools)
    raise MidtrainError(f"no generator of kind {getattr(chosen, 'kind', type(chosen).__name__)}")
