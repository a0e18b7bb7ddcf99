"""The version of the code behind an asset, computed from the code itself: nobody has to remember to bump a number."""

from functools import cache
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Any

# What every stage stands on; a change here is a change of all of them.
FOUNDATION = ("documents",)
# How a result is drawn or asked for on the command line does not change it.
NOT_OF_THE_RESULT = {"__pycache__", "plots.py", "command.py"}


@cache
def code_version(*modules: str) -> str:
    """Version of some modules and packages of `midtrain_dagster` (`clean`, `train.base`), 16 hex digits.

    Taken from their compiled code without line numbers: a comment or a reformatted line changes nothing, a changed
    constant or prompt file does. Reading compiled code does not import it.
    """
    found = blake2b(digest_size=8)
    for name in sorted({*FOUNDATION, *modules}):
        for module, path in _members(name):
            found.update(module.encode())
            found.update(_content(module, path))
    return found.hexdigest()


def _members(name: str) -> list[tuple[str, Path]]:
    root = Path(__file__).parent
    place = root.joinpath(*name.split("."))
    single = place.with_name(f"{place.name}.py")
    if single.exists():
        return [(f"midtrain_dagster.{name}", single)]
    files = sorted(p for p in place.rglob("*") if p.is_file() and not NOT_OF_THE_RESULT & {*p.parts, p.name})
    return [(".".join(("midtrain_dagster", *p.relative_to(root).with_suffix("").parts)), p) for p in files]


def _content(module: str, path: Path) -> bytes:
    if path.suffix != ".py":
        return path.read_bytes()
    if path.name == "__init__.py":
        module = module.removesuffix(".__init__")
    spec = find_spec(module)
    code = spec.loader.get_code(module) if spec and spec.loader else None  # type: ignore[attr-defined]
    return repr(_strip(code)).encode()


def _strip(code: CodeType | None) -> Any:
    """The parts of compiled code that decide what it does."""
    if code is None:
        return ()
    constants = tuple(_strip(c) if isinstance(c, CodeType) else _ordered(c) for c in code.co_consts)
    return (code.co_code, constants, code.co_names, code.co_varnames, code.co_name)


def _ordered(constant: Any) -> Any:
    return sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant
