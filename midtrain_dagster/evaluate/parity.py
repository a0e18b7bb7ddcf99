"""Do numbers move with the batch? A sample of requests is scored again, one to a pass, and compared."""

from collections.abc import Mapping
from typing import Any

TOLERANCE = {"torch.float32": 1e-3, "torch.bfloat16": 0.05, "torch.float16": 0.02}  # nats a token


def parity(lm: Any, logged: Mapping[str, list[dict[str, Any]]], sample: int) -> dict[str, Any] | None:
    """Scores of the first `sample` questions' options, alone against packed with others.

    {"requests", "largest_difference" (nats), "flagged": beyond the precision's tolerance for a token, "changed_answers": questions
    whose best option is another one}; None where nothing was scored or sample is 0.
    """
    questions = [s for some in logged.values() for s in some if s["resps"] and _scored(s)][:sample]
    if not questions:
        return None
    alone = [[lm.score_alone(*arguments[:2]) for arguments in question["arguments"]] for question in questions]
    packed = [[answer[0][0] for answer in question["resps"]] for question in questions]
    tolerance = TOLERANCE.get(str(lm.model.dtype), 0.05)
    differences = [
        (abs(a - p), length)
        for some, others in zip(alone, packed, strict=True)
        for (a, length), p in zip(some, others, strict=True)
    ]
    changed = sum(
        max(range(len(p)), key=lambda i: a[i][0]) != max(range(len(p)), key=lambda i: p[i])
        for a, p in zip(alone, packed, strict=True)
    )
    return {
        "requests": len(differences),
        "largest_difference": max(d for d, _ in differences),
        "flagged": sum(d > tolerance * max(length, 1) for d, length in differences),
        "changed_answers": changed,
    }


def _scored(sample: Mapping[str, Any]) -> bool:
    return isinstance(sample["resps"][0][0], tuple | list)
