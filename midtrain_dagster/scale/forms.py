"""The laws: loss as a function of share, tokens, size and the state that training starts from.

A form computes losses of shape (…, n) from parameters (p, …, 1) and points (n). Parameters that must be positive are
given as their logarithms. Share is that of the domain whose loss is modelled, so every loss falls in its own share.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from midtrain_dagster.scale.measurements import Points

EPSILON = 1e-9


@dataclass(frozen=True)
class Parameter:
    """One parameter: starts are drawn uniformly between `low` and `high` (of its logarithm, where positive).

    Where `of_loss`, the range is relative to the smallest loss measured."""

    name: str
    low: float
    high: float
    positive: bool = True
    of_loss: bool = False


@dataclass(frozen=True)
class Form:
    """A law of one piece, fitted over all points at once."""

    name: str
    paper: str
    parameters: tuple[Parameter, ...]
    loss: Callable[[np.ndarray, Points], np.ndarray]
    needs: tuple[str, ...] = ("share", "tokens")
    local: bool = False  # fitted anew at each number of tokens and size


def _log(x: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(x, EPSILON))


def _scaled(x: np.ndarray, unit: float) -> np.ndarray:
    return np.maximum(x, EPSILON) / unit


def _size_term(form: Form, points: Points, unit_size: float) -> Form:
    """The form with + A/N^α."""
    inner = form.loss

    def loss(theta: np.ndarray, x: Points) -> np.ndarray:
        return inner(theta[:-2], x) + np.exp(theta[-2] - np.exp(theta[-1]) * np.log(x.size / unit_size))

    extra = (Parameter("A", -3.0, 0.0), Parameter("alpha", -2.5, 0.0))
    return Form(form.name, form.paper, form.parameters + extra, loss, (*form.needs, "size"), form.local)


def form(name: str, points: Points) -> Form:
    """The form, scaled to the points (tokens and sizes are divided by their medians), with a size term where sizes vary."""
    with_tokens = points.tokens[np.isfinite(points.tokens) & (points.tokens > 0)]
    unit = float(np.median(with_tokens)) if len(with_tokens) else 1.0
    found = FORMS[name](unit)
    if points.varies("size") and not found.local:
        found = _size_term(found, points, float(np.median(points.size)))
    return found


def d_cpt(unit: float) -> Form:
    """L = E + A/N^α + B·r^η/D^β + C/(r + ε)^γ (D-CPT law, arXiv 2406.01375)."""

    def loss(t: np.ndarray, x: Points) -> np.ndarray:
        data = np.exp(t[1] + np.exp(t[2]) * _log(x.share) - np.exp(t[3]) * _log(_scaled(x.tokens, unit)))
        return np.exp(t[0]) + data + np.exp(t[4] - np.exp(t[6]) * _log(x.share + np.exp(t[5])))

    parameters = (
        Parameter("E", -0.7, 0.0, of_loss=True),
        Parameter("B", -4.0, 0.0),
        Parameter("eta", -3.0, 0.5),
        Parameter("beta", -3.0, 0.0),
        Parameter("C", -5.0, -1.0),
        Parameter("epsilon", -5.0, 0.0),
        Parameter("gamma", -2.0, 1.0),
    )
    return Form("d_cpt", "arXiv 2406.01375", parameters, loss)


def exponential(unit: float) -> Form:
    """L = c + exp(b − k·r), fitted at each number of tokens and size apart (Data Mixing Laws, arXiv 2403.16952)."""

    def loss(t: np.ndarray, x: Points) -> np.ndarray:
        return np.exp(t[0]) + np.exp(t[1] - np.exp(t[2]) * x.share)

    parameters = (Parameter("c", -0.4, 0.0, of_loss=True), Parameter("b", -4.0, 0.0), Parameter("k", -1.0, 3.0))
    return Form("exponential", "arXiv 2403.16952", parameters, loss, local=True)


def bimix(unit: float) -> Form:
    """L = (B/D^β + C)/r^α: BiMix's law in the domain's own share and in steps (arXiv 2405.14908; its A is one with B and C).
    A share below a thousandth counts as one, since the form has no end at 0."""

    def loss(t: np.ndarray, x: Points) -> np.ndarray:
        steps = np.exp(t[1] - np.exp(t[2]) * _log(_scaled(x.tokens, unit))) + np.exp(t[0])
        return steps * np.exp(-np.exp(t[3]) * np.log(np.maximum(x.share, 1e-3)))

    parameters = (
        Parameter("C", -0.7, 0.0, of_loss=True),
        Parameter("B", -4.0, 0.0),
        Parameter("beta", -3.0, 0.5),
        Parameter("alpha", -7.0, -1.0),
    )
    return Form("bimix", "arXiv 2405.14908", parameters, loss)


def cmr(unit: float) -> Form:
    """ΔL(R, T) = α·R^s·T^u + α₃·T^{s₃} + β: the CMR law's power laws in ratio and tokens, fitted together
    (arXiv 2407.17467; there one after the other). R is the share of the other domain, ΔL counts from the start loss."""

    def loss(t: np.ndarray, x: Points) -> np.ndarray:
        log_t = _log(_scaled(x.tokens, unit))
        shift = np.exp(t[0] + np.exp(t[1]) * _log(1 - x.share) + t[2] * log_t)
        return x.start + shift + t[3] * np.exp(t[4] * log_t) + t[5]

    parameters = (
        Parameter("alpha", -4.0, 0.0),
        Parameter("s", -2.0, 2.0),
        Parameter("u", -0.5, 0.5, positive=False),
        Parameter("alpha3", -0.5, 0.2, positive=False),
        Parameter("s3", -0.5, 0.5, positive=False),
        Parameter("beta", -0.5, 0.2, positive=False),
    )
    return Form("cmr", "arXiv 2407.17467", parameters, loss, ("share", "tokens", "start"))


def chinchilla_start(unit: float) -> Form:
    """L = E(r) + (L₀ − E(r))·(1 + D/D₀)^{−β}, E(r) = c + exp(b − k·r): Chinchilla's power law in data (arXiv 2203.15556)
    that begins, exactly, at the loss L₀ of the checkpoint it starts from."""

    def loss(t: np.ndarray, x: Points) -> np.ndarray:
        end = np.exp(t[0]) + np.exp(t[1] - np.exp(t[2]) * x.share)
        return end + (x.start - end) * np.exp(-np.exp(t[4]) * np.log1p(x.tokens / unit * np.exp(-t[3])))

    parameters = (
        Parameter("c", -0.6, 0.0, of_loss=True),
        Parameter("b", -4.0, 0.0),
        Parameter("k", -1.0, 3.0),
        Parameter("D0", -6.0, 1.0),
        Parameter("beta", -3.0, 1.0),
    )
    return Form("chinchilla_start", "arXiv 2203.15556", parameters, loss, ("share", "tokens", "start"))


def annealing(unit: float) -> Form:
    """L = E(r) + A·S₁^{−α} − C·S₂ (Tissue et al., arXiv 2408.11029), with E(r) = c + exp(b − k·r) for the share."""

    def loss(t: np.ndarray, x: Points) -> np.ndarray:
        end = np.exp(t[0]) + np.exp(t[1] - np.exp(t[2]) * x.share)
        return end + np.exp(t[3] - np.exp(t[4]) * _log(x.lr_area)) - np.exp(t[5]) * x.annealing_area

    parameters = (
        Parameter("c", -0.6, 0.0, of_loss=True),
        Parameter("b", -4.0, 0.0),
        Parameter("k", -1.0, 3.0),
        Parameter("A", -3.0, 1.0),
        Parameter("alpha", -2.5, 0.0),
        Parameter("C", -4.0, 2.0),
    )
    return Form("annealing", "arXiv 2408.11029", parameters, loss, ("share", "lr_area", "annealing_area"))


def adaptation(unit: float) -> Form:
    """L = c + exp(b − k·r)·(1 − exp(−D/τ)) + A·D^{−β}: forgetting (or the lack of own data) sets in within about τ tokens,
    more where the own share is small, while all of training slowly lowers the loss. Ours: the exponential law of the share
    with the time course that continual training shows, a rise and a slow fall."""

    def loss(t: np.ndarray, x: Points) -> np.ndarray:
        d = _scaled(x.tokens, unit)
        own = np.exp(t[1] - np.exp(t[2]) * x.share) * -np.expm1(-d * np.exp(-t[3]))
        return np.exp(t[0]) + own + np.exp(t[4] - np.exp(t[5]) * np.log(d))

    parameters = (
        Parameter("c", -0.6, 0.0, of_loss=True),
        Parameter("b", -4.0, 0.0),
        Parameter("k", -1.0, 3.0),
        Parameter("tau", -4.0, 1.0),
        Parameter("A", -5.0, 0.0),
        Parameter("beta", -3.0, 0.5),
    )
    return Form("adaptation", "ours", parameters, loss)


FORMS: dict[str, Callable[[float], Form]] = {
    "d_cpt": d_cpt,
    "cmr": cmr,
    "chinchilla_start": chinchilla_start,
    "annealing": annealing,
    "bimix": bimix,
    "exponential": exponential,
    "adaptation": adaptation,
}
