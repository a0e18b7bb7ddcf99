"""Fitting a law: Huber on log loss, L-BFGS from many starts, intervals from resampled residuals."""

from dataclasses import dataclass, field

import numpy as np

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.scaling import LawFit
from midtrain_dagster.scale.forms import FORMS, Form, form
from midtrain_dagster.scale.measurements import Points

LOCAL_STARTS = 8  # three parameters need no more


@dataclass(frozen=True)
class Piece:
    """Parameters fitted to some of the points: all of them, or those at one number of tokens and size."""

    tokens: float | None
    size: float | None
    theta: np.ndarray  # (p,)
    resampled: np.ndarray  # (bootstrap, p)
    residuals: np.ndarray  # log measured − log fitted, widened for the parameters spent


@dataclass(frozen=True)
class Law:
    """A fitted law."""

    form: Form
    settings: LawFit
    pieces: list[Piece]
    mae: float  # nats, on the points fitted
    r2: float
    points: int
    shares: tuple[float, float] = field(default=(0.0, 1.0))  # range fitted on

    def predict(self, points: Points) -> np.ndarray:
        """Losses in nats, (n,). A law that is fitted at each number of tokens apart interpolates between those it has seen
        (straight in log tokens); outside them it raises MidtrainError."""
        return self._evaluate(points, None)

    def samples(self, points: Points, noise: bool = True) -> np.ndarray:
        """Losses by every refit, (bootstrap, n); with `noise`, what a run there would measure rather than the mean."""
        count = self.settings.bootstrap
        found = np.stack([self._evaluate(points, b) for b in range(count)]) if count else np.empty((0, len(points)))
        if noise and count:
            residuals = np.concatenate([p.residuals for p in self.pieces])
            rng = np.random.default_rng([self.settings.seed, 2])
            found = found * np.exp(rng.choice(residuals, size=found.shape))
        return found

    def interval(self, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bound for what a run would measure, (n,) each; NaN without bootstrap."""
        drawn = self.samples(points)
        if not len(drawn):
            return np.full(len(points), np.nan), np.full(len(points), np.nan)
        tail = (1 - self.settings.interval) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
        return low, high

    def parameters(self) -> list[dict[str, float | None]]:
        """The parameters as numbers (positive ones no longer logarithms), one mapping a piece."""
        return [
            {
                **({"tokens": p.tokens, "size": p.size} if self.form.local else {}),
                **{q.name: float(np.exp(v) if q.positive else v) for q, v in zip(self.form.parameters, p.theta, strict=True)},
            }
            for p in self.pieces
        ]

    def _evaluate(self, points: Points, sample: int | None) -> np.ndarray:
        def of(piece: Piece, at: Points) -> np.ndarray:
            theta = piece.theta if sample is None else piece.resampled[sample]
            return self.form.loss(theta[:, None], at)

        if not self.form.local:
            return of(self.pieces[0], points)
        result = np.empty(len(points))
        for i in range(len(points)):
            low, high, way = self._neighbours(points.tokens[i], points.size[i])
            at = points[np.array([i])]
            result[i] = (1 - way) * of(low, at)[0] + way * of(high, at)[0]
        return result

    def _neighbours(self, tokens: float, size: float) -> tuple[Piece, Piece, float]:
        own = [p for p in self.pieces if p.size is None or not np.isfinite(size) or p.size == size]
        if not own:
            raise MidtrainError(f"form {self.form.name}: nothing was measured at size {size:g}; choose a form with a size term")
        if own[0].tokens is None:
            return own[0], own[0], 0.0
        known = np.array([p.tokens for p in own], float)
        if not known.min() <= tokens <= known.max():
            raise MidtrainError(
                f"form {self.form.name} holds between the measured {known.min():g} and {known.max():g} tokens or steps, "
                f"not at {tokens:g}; choose another form to go further"
            )
        high = int(np.searchsorted(known, tokens))
        if known[high] == tokens:
            return own[high], own[high], 0.0
        return own[high - 1], own[high], float(np.log(tokens / known[high - 1]) / np.log(known[high] / known[high - 1]))


def fit(points: Points, losses: np.ndarray, settings: LawFit) -> Law:
    """Fit the settings' form (not `auto`: see `choose`) to measured losses in nats, (n,).

    Raises MidtrainError where the table lacks what the form needs or has fewer points than it has parameters.
    """
    chosen = form(settings.form, points)
    _check(chosen, points, losses)
    groups = _groups(chosen, points)
    pieces = [_piece(chosen, points[rows], losses[rows], settings, tokens, size) for tokens, size, rows in groups]
    law = Law(chosen, settings, pieces, 0.0, 0.0, len(points), (float(points.share.min()), float(points.share.max())))
    fitted = law.predict(points)
    spread = ((losses - losses.mean()) ** 2).sum()
    r2 = float(1 - ((losses - fitted) ** 2).sum() / spread) if spread else float("nan")
    return Law(chosen, settings, pieces, float(np.abs(losses - fitted).mean()), r2, len(points), law.shares)


def usable(points: Points) -> list[str]:
    """Forms whose columns are all there."""
    return [
        name
        for name in FORMS
        if all(points.has(need) for need in form(name, points).needs if need != "tokens" or points.has("tokens"))
    ]


def _check(chosen: Form, points: Points, losses: np.ndarray) -> None:
    missing = [n for n in chosen.needs if not points.has(n) and not (chosen.local and n == "tokens")]
    if missing:
        raise MidtrainError(
            f"form {chosen.name} needs {', '.join(missing)} in every row; name the columns, or choose another form"
        )
    if not np.isfinite(losses).all() or (losses <= 0).any():
        raise MidtrainError("losses must be positive numbers in every row")


def _groups(chosen: Form, points: Points) -> list[tuple[float | None, float | None, np.ndarray]]:
    if not chosen.local:
        return [(None, None, np.arange(len(points)))]
    sizes = points.size if points.has("size") else np.full(len(points), -1.0)
    tokens = points.tokens if points.has("tokens") else np.full(len(points), -1.0)
    keys = np.stack([sizes, tokens], axis=1)
    groups = []
    for key in np.unique(keys, axis=0):
        rows = np.flatnonzero((keys == key).all(axis=1))
        size, count = (None if v < 0 else float(v) for v in key)
        groups.append((count, size, rows))
    return groups


def _piece(
    chosen: Form, points: Points, losses: np.ndarray, settings: LawFit, tokens: float | None, size: float | None
) -> Piece:
    needed = len(chosen.parameters)
    if len(points) < needed:
        where = f" at {tokens:g} tokens" if tokens is not None else ""
        raise MidtrainError(f"form {chosen.name} has {needed} parameters, but there are only {len(points)} measurements{where}")
    rng = np.random.default_rng([settings.seed, 0])
    count = min(settings.starts, LOCAL_STARTS) if chosen.local else settings.starts
    theta = best(chosen, points, losses, settings, starts(chosen, losses, count, rng))
    residuals = np.log(losses) - np.log(chosen.loss(theta[:, None], points))
    widened = residuals * np.sqrt(len(points) / max(len(points) - needed, 1))
    rng = np.random.default_rng([settings.seed, 1])
    resampled = []
    for _ in range(settings.bootstrap):
        drawn = np.exp(np.log(losses) - residuals + rng.choice(widened, len(widened)) * rng.choice([-1.0, 1.0], len(widened)))
        resampled.append(best(chosen, points, drawn, settings, theta[None]))
    return Piece(tokens, size, theta, np.array(resampled).reshape(-1, needed), widened)


def starts(chosen: Form, losses: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random starts, (count, p)."""
    low = np.array([p.low for p in chosen.parameters])
    high = np.array([p.high for p in chosen.parameters])
    shift = np.array([np.log(losses.min()) if p.of_loss else 0.0 for p in chosen.parameters])
    return shift + rng.uniform(low, high, size=(count, len(low)))


def best(chosen: Form, points: Points, losses: np.ndarray, settings: LawFit, begin: np.ndarray) -> np.ndarray:
    """The parameters with the least Huber loss found from any of the starts.

    L-BFGS takes a short way from each start; the best two are finished by a trust-region method, which follows the
    narrow valleys of these laws in few steps. One start alone is only finished.
    """
    from scipy.optimize import least_squares, minimize

    target, delta = np.log(losses), settings.huber_delta
    step = 1e-6 * np.concatenate([np.eye(begin.shape[1]), -np.eye(begin.shape[1])], axis=0)
    half = begin.shape[1]

    def residuals(thetas: np.ndarray) -> np.ndarray:
        """(m, p) → (m, n + p) in units of delta; the last p keep what the data do not determine from wandering off."""
        with np.errstate(all="ignore"):
            fitted = np.log(np.maximum(chosen.loss(thetas.T[:, :, None], points), 1e-6))
        r = np.clip(np.nan_to_num((fitted - target) / delta, nan=1e6, posinf=1e6, neginf=-1e6), -1e6, 1e6)
        return np.concatenate([r, 1e-3 * thetas], axis=1)

    def both(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals and their Jacobian (n + p, p): all central differences in one evaluation."""
        r = residuals(np.concatenate([theta[None], theta + step]))
        return r[0], ((r[1 : half + 1] - r[half + 1 :]) / 2e-6).T

    def huber(theta: np.ndarray) -> tuple[float, np.ndarray]:
        r, jacobian = both(theta)
        value = np.where(np.abs(r) <= 1, 0.5 * r * r, np.abs(r) - 0.5).sum()
        return float(value), np.clip(r, -1, 1) @ jacobian

    if len(begin) > 1:
        near = [minimize(huber, b, jac=True, method="L-BFGS-B", options={"maxiter": 30}) for b in begin]
        begin = np.array([f.x for f in sorted(near, key=lambda f: float(f.fun))[:2]])
    ends = [least_squares(lambda t: both(t)[0], b, lambda t: both(t)[1], loss="huber", max_nfev=100) for b in begin]
    return np.asarray(min(ends, key=lambda f: float(f.cost)).x)
