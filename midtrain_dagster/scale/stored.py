"""Laws as plain values, so that a plan can be made from a law that was fitted before."""

from typing import Any

import numpy as np

from midtrain_dagster.recipes.scaling import LawFit
from midtrain_dagster.scale.fit import Law, Piece
from midtrain_dagster.scale.forms import form
from midtrain_dagster.scale.measurements import Points


def to_values(law: Law) -> dict[str, Any]:
    """What JSON can hold of a law: all of it but the formula, which its name stands for."""
    return {
        "form": law.form.name,
        "settings": law.settings.model_dump(mode="json"),
        "pieces": [
            {
                "tokens": p.tokens,
                "size": p.size,
                "theta": p.theta.tolist(),
                "resampled": p.resampled.tolist(),
                "residuals": p.residuals.tolist(),
            }
            for p in law.pieces
        ],
        "mae": law.mae,
        "r2": law.r2,
        "points": law.points,
        "shares": list(law.shares),
    }


def from_values(values: dict[str, Any], points: Points) -> Law:
    """The law again; `points` are those it was fitted to, which give the units of tokens and size."""
    pieces = [
        Piece(
            p["tokens"],
            p["size"],
            np.array(p["theta"]),
            np.array(p["resampled"]).reshape(-1, len(p["theta"])),
            np.array(p["residuals"]),
        )
        for p in values["pieces"]
    ]
    settings = LawFit.model_validate(values["settings"])
    low, high = values["shares"]
    return Law(
        form(values["form"], points), settings, pieces, values["mae"], values["r2"], values["points"], (float(low), float(high))
    )
