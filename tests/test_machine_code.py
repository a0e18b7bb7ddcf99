"""Machine code that was made of other sources is not run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from midtrain_dagster import machine_code

MODULE = """
from numba import njit
{imported}

@njit(cache={cached})
def {name}(x):
    return {result}
"""
RUN = """
import sys
from pathlib import Path
from midtrain_dagster import machine_code
machine_code.keep(Path("package"))
sys.path.insert(0, "package/clean")
import outer
print(outer.outer(1))
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function of another file, compiled into a kept one; what a process of its own gives for it."""
    monkeypatch.delenv(machine_code.VARIABLE, raising=False)
    stage = tmp_path / "package" / "clean"
    stage.mkdir(parents=True)
    (stage / "outer.py").write_text(
        MODULE.format(imported="from inner import inner", cached=True, name="outer", result="inner(x)")
    )

    def told(result: str, **environment: str) -> str:
        (stage / "inner.py").write_text(MODULE.format(imported="", cached=False, name="inner", result=result))
        env = os.environ | environment
        done = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    return told


def test_a_change_in_another_file_is_compiled_in(run) -> None:
    assert [run("x + 1"), run("x + 2"), run("x + 1")] == ["2", "3", "2"]


def test_what_a_parent_process_said_of_older_sources_does_not_count(run, tmp_path: Path) -> None:
    assert run("x + 1") == "2"
    (kept,) = (tmp_path / "package" / "__pycache__").parent.rglob(f"{machine_code.NAME}*")
    assert run("x + 2", **{machine_code.VARIABLE: str(kept)}) == "3"


def test_a_directory_that_the_environment_names_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(machine_code.VARIABLE, str(tmp_path))
    assert machine_code.keep() == tmp_path
