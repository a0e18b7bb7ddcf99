"""A teacher as a command line names it: `local:DIR`, `openai:URL#MODEL`, `fake`, and its settings as key=value."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from midtrain_dagster.errors import MidtrainError

if TYPE_CHECKING:
    from resources.teacher import CachedTeacher

NAMED = "local:DIR, openai:URL#MODEL, or fake; its key is in the environment."


def opened(named: str, options: list[str], cache: Path, option: str = "--teacher") -> "CachedTeacher":
    """The teacher, every reply of it kept in the SQLite file `cache`. Raises MidtrainError, which names the
    command line's `option`, where it is not well named."""
    from midtrain_dagster.project.teacher import TeacherSettings
    from resources.teacher import teacher

    kind, _, place = named.partition(":")
    values: dict[str, Any] = {"kind": kind}
    if kind == "local":
        values |= {"model": place}
    elif kind == "openai":
        url, _, model = place.partition("#")
        values |= {"base_url": url or None, "model": model}
    elif kind != "fake":
        raise MidtrainError(f"{option} {named or '(none)'}: expected local:DIR, openai:URL#MODEL or fake")
    settings: TeacherSettings = TeacherSettings.check({**values, **pairs(options)}, option)
    return teacher(settings, cache)


def pairs(options: list[str]) -> dict[str, Any]:
    """Settings given as key=value, the value in YAML."""
    import yaml

    for option in options:
        if "=" not in option:
            raise MidtrainError(f"{option}: expected key=value")
    return {key: yaml.safe_load(value) for key, _, value in (option.partition("=") for option in options)}
