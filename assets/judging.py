"""The project's teacher as the judge of matches in doubt, for one source's refresh."""

from functools import cached_property

import dagster as dg
import polars as pl

from assets.outcome import progress
from midtrain_dagster.decontaminate.judge import Ask, Said, judged
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.project import Project
from midtrain_dagster.recipes.decontamination import Decontamination, Judge
from midtrain_dagster.recipes.recipe import Recipe
from midtrain_dagster.refresh import fingerprint
from resources.project_teacher import ProjectTeacher
from resources.teacher import answers

TOLD = {
    "asked": "pairs that the judge was asked about",
    "yes": "judged the same question",
    "no": "judged another question",
    "unclear": "no clear answer of the judge",
}


class Judging:
    """Asks the teacher, which it opens when the first match is in doubt, and counts what it said in this refresh."""

    def __init__(
        self, context: dg.AssetExecutionContext, source: str, teacher: ProjectTeacher, settings: Judge, threshold: float
    ):
        self.context, self.source, self.teacher = context, source, teacher
        self.settings, self.threshold, self.said = settings, threshold, Said()

    @property
    def version(self) -> str:
        """Changes with whatever could change a judgement."""
        return fingerprint(self.teacher.version, self.threshold)

    @cached_property
    def _ask(self) -> Ask:
        counted = progress(self.context, f"ask the judge about {self.source}", "pairs")
        return answers(self.teacher.open(), f"decontaminate/{self.source}", counted)

    def over(self, matches: pl.DataFrame, documents: pl.DataFrame, questions: pl.DataFrame) -> pl.DataFrame:
        """Matches with the judge's word on those in doubt."""
        found, said = judged(matches, documents, questions, lambda prompts: self._ask(prompts), self.settings, self.threshold)
        self.said = Said(*(before + now for before, now in zip(self.said, said, strict=True)))
        if said.unclear:
            self.context.log.warning(
                f"{self.source}: the judge gave no clear answer about {said.unclear:,} of {said.asked:,} pairs; they keep their score"
            )
        return found

    def told(self) -> dict[str, int]:
        """What this refresh asked, for the asset's metadata."""
        return {TOLD[name]: count for name, count in self.said._asdict().items()}


def demand_teacher(project: Project, settings: Decontamination, recipes: list[Recipe]) -> None:
    """MidtrainError where a judge is wanted and the project has no teacher."""
    if settings.judge is not None and project.teacher is None:
        raise MidtrainError(
            f"recipe {recipes[0].name}: decontamination.judge asks the project's teacher, and the project file names none; "
            "add a `teacher:` section to it, or take the judge out of the recipe"
        )
