"""The project's teacher, opened when something is asked of it and not before."""

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.teacher import TeacherSettings
from midtrain_dagster.refresh import fingerprint
from resources.lake import Lake
from resources.packaged import PACKAGED, packaged_model
from resources.teacher import CachedTeacher, teacher


class ProjectTeacher:
    """Opens the teacher of the project file; `packaged` is the small model that comes as a package."""

    def __init__(self, settings: TeacherSettings | None, lake: Lake):
        self.settings, self.lake = settings, lake

    @property
    def version(self) -> str:
        """Changes with whatever could change an answer."""
        if self.settings is None:
            return ""
        asked = self.settings.model_dump(mode="json", include={"kind", "model", "base_url", "dtype", "script"})
        return fingerprint(asked)

    def open(self) -> CachedTeacher:
        """The teacher with its cache, accounts and budget. MidtrainError where the project names none."""
        if self.settings is None:
            raise MidtrainError("a generator needs a teacher; add a `teacher:` section to the project file")
        settings = self.settings
        if settings.kind == "local" and settings.model == PACKAGED:
            settings = settings.model_copy(update={"model": str(packaged_model(self.lake))})
        return teacher(settings, self.lake.cache_path("teacher") / "replies.sqlite")
