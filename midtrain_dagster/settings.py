"""The base of every configuration class: unknown keys are errors, values never change after reading."""

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from midtrain_dagster.errors import MidtrainError


class Settings(BaseModel):
    """A section of a project file or a recipe. Document each field where it is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read one YAML file as this class.

        Raises MidtrainError with the file, the place in it and what is wrong there, one problem a line.
        """
        try:
            values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise MidtrainError(f"{path}: there is no such file") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise MidtrainError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
        return cls.check(values, where=str(path))

    @classmethod
    def check(cls, values: Any, where: str) -> Self:
        """Validate plain values; `where` names their origin in the error message."""
        if not isinstance(values, dict):
            raise MidtrainError(f"{where}: expected a mapping of keys to values, found {type(values).__name__}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = [f"{'.'.join(str(part) for part in e['loc']) or 'top level'}: {e['msg']}" for e in error.errors()]
            raise MidtrainError(f"{where}: " + "; ".join(problems)) from None
