"""Fitting a law: Huber on log loss from many starts, intervals from refits to the residuals of whole runs."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.recipes.scaling import LawFit
from midtrain_dagster.scale.forms import FORMS, Form, form
from midtrain_dagster.scale.measurements import Points
from midtrain_dagster.scale.minimise import RIDGE, STEP, levenberg_marquardt

LOCAL_STARTS = 8  # three parameters need no more
MOST_RESIDUALS = 60  # evenly spaced among all, sorted: enough for quantiles


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
        """Losses by every refit, (bootstrap, n); with `noise`, what a run there would measure rather than the mean: every
        refit with every residual, (bootstrap × residuals, n), at most MOST_RESIDUALS of these."""
        count = self.settings.bootstrap
        found = np.stack([self._evaluate(points, b) for b in range(count)]) if count else np.empty((0, len(points)))
        if noise and count:
            residuals = np.sort(np.concatenate([p.residuals for p in self.pieces]))
            some = residuals[np.unique(np.linspace(0, len(residuals) - 1, MOST_RESIDUALS).round().astype(int))]
            found = (found[:, None] * np.exp(some)[None, :, None]).reshape(-1, len(points))
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
        cells = np.stack([points.tokens, points.size], axis=1)
        _, first, cell = np.unique(np.nan_to_num(cells, nan=-1.0), axis=0, return_index=True, return_inverse=True)
        for number, i in enumerate(first):
            rows = np.flatnonzero(cell.ravel() == number)
            low, high, way = self._neighbours(points.tokens[i], points.size[i])
            at = points[rows]
            result[rows] = of(low, at) if way == 0 else (1 - way) * of(low, at) + way * of(high, at)
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
    drawn = np.log(losses) - residuals + by_run(points, widened, settings)
    resampled = refits(chosen, points, theta, drawn, settings) if len(drawn) else np.empty((0, needed))
    return Piece(tokens, size, theta, resampled, widened)


def by_run(points: Points, residuals: np.ndarray, settings: LawFit) -> np.ndarray:
    """Residuals drawn anew, (bootstrap, n): every run gets the residuals of one run, all with one sign.

    Checkpoints of a run err together, so drawing them one by one would give intervals that are too narrow. A run is all
    points of one share and size; the n-th checkpoint of one gets the n-th of the other.
    """
    keys = np.stack([points.share, np.nan_to_num(points.size, nan=-1.0)], axis=1)
    labels = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
    count = int(labels.max()) + 1
    members = [np.flatnonzero(labels == run) for run in range(count)]
    members = [own[np.argsort(np.nan_to_num(points.tokens[own]), kind="stable")] for own in members]
    rng = np.random.default_rng([settings.seed, 1])
    donors = rng.integers(0, count, size=(settings.bootstrap, count))
    signs = rng.choice([-1.0, 1.0], size=(settings.bootstrap, count))
    drawn = np.empty((settings.bootstrap, len(residuals)))
    for b in range(settings.bootstrap):
        for run, own in enumerate(members):
            given = residuals[members[donors[b, run]]]
            drawn[b, own] = signs[b, run] * given[np.minimum(np.arange(len(own)), len(given) - 1)]
    return drawn


def refits(chosen: Form, points: Points, theta: np.ndarray, targets: np.ndarray, settings: LawFit) -> np.ndarray:
    """Parameters fitted to each row of log losses, (m, p), all beginning at `theta`."""
    begin = np.repeat(theta[None], len(targets), axis=0)
    return levenberg_marquardt(_log_loss(chosen, points), begin, targets, np.ones_like(targets), settings.huber_delta)[0]


def _log_loss(chosen: Form, points: Points) -> Callable[[np.ndarray], np.ndarray]:
    """(m, p) parameters → (m, n) logarithms of losses."""

    def log_loss(thetas: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(np.log(np.maximum(chosen.loss(thetas.T[:, :, None], points), 1e-6)))

    return log_loss


def starts(chosen: Form, losses: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random starts, (count, p)."""
    low = np.array([p.low for p in chosen.parameters])
    high = np.array([p.high for p in chosen.parameters])
    shift = np.array([np.log(losses.min()) if p.of_loss else 0.0 for p in chosen.parameters])
    return shift + rng.uniform(low, high, size=(count, len(low)))


def best(chosen: Form, points: Points, losses: np.ndarray, settings: LawFit, begin: np.ndarray) -> np.ndarray:
    """The parameters with the least Huber loss on log loss (arXiv 2203.15556) found from any of the starts.

    Levenberg–Marquardt takes all starts some way together; L-BFGS, which needs no curvature, goes on from the best, and
    Levenberg–Marquardt finishes: these laws have narrow valleys.
    """
    from scipy.optimize import minimize

    log_loss = _log_loss(chosen, points)
    target = np.log(losses)[None]
    delta, p = settings.huber_delta, begin.shape[1]
    step = STEP * np.concatenate([np.zeros((1, p)), np.eye(p), -np.eye(p)])

    def run(thetas: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
        targets = np.repeat(target, len(thetas), axis=0)
        return levenberg_marquardt(log_loss, thetas, targets, np.ones_like(targets), delta, iterations)

    def huber(theta: np.ndarray) -> tuple[float, np.ndarray]:
        r = np.clip(np.nan_to_num((log_loss(theta + step) - target) / delta, nan=1e6), -1e6, 1e6)
        value = np.where(np.abs(r) <= 1, 0.5 * r * r, np.abs(r) - 0.5).sum(axis=1) + 0.5 * RIDGE**2 * (theta**2).sum()
        return float(value[0]), (value[1 : p + 1] - value[p + 1 :]) / (2 * STEP) + RIDGE**2 * theta

    near, cost = run(begin, 40)
    near = near[np.argsort(cost, kind="stable")[:4]]
    further = minimize(huber, near[0], jac=True, method="L-BFGS-B", options={"maxiter": 40}).x
    ends, cost = run(np.concatenate([near, further[None]]), 200)
    return np.asarray(ends[int(np.argmin(cost))])
