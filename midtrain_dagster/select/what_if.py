"""Small changes to a selection, as people type them: `rate.edu>=2.5`, `contamination.score=0.3`, `rules.long=words>=100`."""

import re
from collections.abc import Iterable
from typing import Any

import yaml

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.selection import Selection

RATING = re.compile(r"\s*rate\.(?P<rater>\w+)\s*(?P<bound>>=|<=)\s*(?P<value>[-+]?[\d.]+(?:e[-+]?\d+)?)\s*", re.IGNORECASE)
SETTING = re.compile(r"\s*(?P<path>[a-z_]+(?:\.[\w -]+)*)\s*=(?!=)(?P<value>.*)", re.DOTALL)


def changed(selection: Selection, changes: Iterable[str]) -> Selection:
    """The selection with each change applied in turn.

    `rate.X>=V` or `rate.X<=V` moves that rater's threshold, `ratings.X=null` drops it; `path.to.setting=VALUE` (VALUE in YAML) sets a setting, where
    `rules.NAME=CONDITION` means the rule of that name; anything else is a condition that becomes one more rule.
    Raises MidtrainError when the result is no valid selection.
    """
    for change in changes:
        values = selection.model_dump(mode="json")
        _apply(values, change)
        selection = Selection.check(values, where=f"--set {change}")
    return selection


def _apply(values: dict[str, Any], change: str) -> None:
    rating, setting = RATING.fullmatch(change), SETTING.fullmatch(change)
    if rating:
        threshold = values["ratings"].setdefault(rating["rater"], {})
        threshold["at_least" if rating["bound"] == ">=" else "at_most"] = float(rating["value"])
    elif setting and setting["path"].split(".")[0] in Selection.model_fields:
        path = [part.strip() for part in setting["path"].split(".")]
        if path[0] == "rules" and len(path) == 2:
            _set_rule(values["rules"], path[1], setting["value"].strip(), change)
        else:
            _set(values, path, setting["value"], change)
    else:
        values["rules"].append({"name": change.strip(), "keep": change.strip()})


def _set_rule(rules: list[dict[str, Any]], name: str, condition: str, change: str) -> None:
    for rule in rules:
        if rule["name"] == name:
            rule["keep"] = condition
            return
    raise MidtrainError(
        f"--set {change}: there is no rule {name}; there are: {', '.join(rule['name'] for rule in rules) or 'none'}"
    )


def _set(values: dict[str, Any], path: list[str], text: str, change: str) -> None:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise MidtrainError(f"--set {change}: {' '.join(str(error).split())}") from None
    for part in path[:-1]:
        if values.get(part) is None:
            values[part] = {}
        values = values[part]
        if not isinstance(values, dict):
            raise MidtrainError(f"--set {change}: {part} is a list; change it in the selection's file")
    if value is None and path[:-1] == ["ratings"]:
        values.pop(path[-1], None)
    else:
        values[path[-1]] = value
