"""Simulated tools: what they do is computed, so that every observation in a trajectory is true."""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from midtrain_dagster.synthesize.acceptance import content_words
from midtrain_dagster.synthesize.passages import sentences


@dataclass(frozen=True)
class Tool:
    """A tool as the teacher sees it, and what it does. `call` raises ValueError with a message for the caller's mistakes."""

    name: str
    description: str
    parameters: Mapping[str, str]  # name -> JSON type
    call: Callable[..., str]

    def schema(self) -> dict[str, Any]:
        """The tool in the schema of OpenAI's function calling."""
        properties = {name: {"type": kind} for name, kind in self.parameters.items()}
        shape = {"type": "object", "properties": properties, "required": list(self.parameters)}
        return {"name": self.name, "description": self.description, "parameters": shape}

    def __call__(self, arguments: Any) -> str:
        """Execute a call. Raises ValueError for arguments that are not those of the schema."""
        kinds = {"string": str, "number": (int, float), "integer": int}
        if not isinstance(arguments, dict) or set(arguments) != set(self.parameters):
            raise ValueError(f"{self.name} takes the arguments {', '.join(self.parameters)}")
        for name, kind in self.parameters.items():
            if not isinstance(arguments[name], kinds[kind]) or isinstance(arguments[name], bool):  # type: ignore[arg-type]
                raise ValueError(f"{name} must be of type {kind}")
        return self.call(**arguments)


def tools(names: tuple[str, ...], text: str) -> dict[str, Tool]:
    """The tools of these names; `lookup` and `search` know `text`."""
    found = sentences(text)
    known = {
        "calculator": Tool("calculator", "Compute an arithmetic expression.", {"expression": "string"}, calculate),
        "convert_units": Tool(
            "convert_units", "Convert a quantity.", {"value": "number", "unit": "string", "to": "string"}, convert
        ),
        "calendar": Tool(
            "calendar", "The date a number of days after YYYY-MM-DD.", {"start": "string", "days": "integer"}, later
        ),
        "lookup": Tool("lookup", "The first sentence about a term.", {"term": "string"}, lambda term: lookup(found, term)),
        "search": Tool(
            "search", "The sentences that fit a query best.", {"query": "string"}, lambda query: search(found, query)
        ),
    }
    return {name: known[name] for name in names}


OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
}


def calculate(expression: str) -> str:
    """The value of an expression of numbers, + - * / // % and brackets."""
    if len(expression) > 200:
        raise ValueError("the expression is too long")
    try:
        value = _value(ast.parse(expression.replace(",", ""), mode="eval").body)
    except (SyntaxError, ZeroDivisionError, OverflowError, RecursionError, MemoryError) as error:
        raise ValueError(f"cannot be computed: {error}") from None
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _value(node: ast.AST) -> int | float:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.BinOp() if type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
        case ast.UnaryOp(op=ast.USub()):
            return -_value(node.operand)
    raise ValueError("only numbers, + - * / // % and brackets")


UNITS = {  # unit -> (dimension, factor to its base unit)
    "m": ("length", 1.0),
    "km": ("length", 1000.0),
    "cm": ("length", 0.01),
    "mi": ("length", 1609.344),
    "ft": ("length", 0.3048),
    "kg": ("mass", 1.0),
    "g": ("mass", 0.001),
    "lb": ("mass", 0.45359237),
    "s": ("time", 1.0),
    "min": ("time", 60.0),
    "h": ("time", 3600.0),
}


def convert(value: float, unit: str, to: str) -> str:
    """A quantity in another unit of the same dimension."""
    if unit not in UNITS or to not in UNITS:
        raise ValueError(f"units are {', '.join(UNITS)}")
    if UNITS[unit][0] != UNITS[to][0]:
        raise ValueError(f"{unit} and {to} do not measure the same")
    return f"{value * UNITS[unit][1] / UNITS[to][1]:.10g} {to}"


def later(start: str, days: int) -> str:
    """A date, some days on."""
    try:
        return (date.fromisoformat(start) + timedelta(days=days)).isoformat()
    except (ValueError, OverflowError) as error:
        raise ValueError(str(error)) from None


def lookup(found: list[str], term: str) -> str:
    """The first sentence that contains a term."""
    return next((s for s in found if term.strip().lower() in s.lower()), "nothing found")


def search(found: list[str], query: str, most: int = 2) -> str:
    """The sentences that share the most content words with a query, in the text's order."""
    wanted = content_words(query)
    scored = [(len(wanted & content_words(sentence)), -place) for place, sentence in enumerate(found)]
    best = sorted(-place for score, place in sorted(scored, reverse=True)[:most] if score > 0)
    return " ".join(found[place] for place in best) or "nothing found"
