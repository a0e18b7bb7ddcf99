"""The small project, for every test that asks for it."""

from pathlib import Path

import pytest
from small_project import write_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project file of a small, complete project in `tmp_path`."""
    return write_project(tmp_path)
