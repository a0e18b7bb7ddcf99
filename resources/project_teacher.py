"""The project's teacher, opened when something is asked of it and not before."""

import sqlite3
from contextlib import closing

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

    def account(self) -> dict[str, float]:
        """All that was ever asked of it through this cache: requests, prompt_tokens, completion_tokens, cost."""
        file = (self.settings.cache if self.settings else None) or self.lake.cache_path("teacher") / "replies.sqlite"
        names = ("requests", "prompt_tokens", "completion_tokens", "cost")
        if not file.exists():
            return dict.fromkeys(names, 0)
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=60)) as database:
            sums = ", ".join(f"coalesce(sum({name}), 0)" for name in names)
            try:
                return dict(zip(names, database.execute(f"select {sums} from ledger").fetchone(), strict=True))
            except sqlite3.OperationalError:  # made, and not yet filled
                return dict.fromkeys(names, 0)

    def open(self) -> CachedTeacher:
        """The teacher with its cache, accounts and budget. MidtrainError where the project names none."""
        if self.settings is None:
            raise MidtrainError("there is no teacher to ask; add a `teacher:` section to the project file")
        settings = self.settings
        if settings.kind == "local" and settings.model == PACKAGED:
            settings = settings.model_copy(update={"model": str(packaged_model(self.lake))})
        return teacher(settings, self.lake.cache_path("teacher") / "replies.sqlite")
