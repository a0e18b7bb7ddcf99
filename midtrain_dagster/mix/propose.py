"""From proxy runs to a proposal: shares, what they are expected to give, and whether the runs support a change."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.mix.regression import METHOD_MODELS, MODELS, Predictor, Score, score


@dataclass(frozen=True)
class Regression:
    """One model a domain, with refits on resampled runs."""

    model: str
    components: tuple[str, ...]
    domains: tuple[str, ...]
    fitted: tuple[Predictor, ...]
    refits: tuple[tuple[Predictor, ...], ...]  # (bootstrap, domains)
    held_out: tuple[Score, ...]  # by cross-validation
    residuals: np.ndarray  # (n, domains): cross-validated measured − predicted

    def predict(self, shares: np.ndarray) -> np.ndarray:
        """(k, m) shares → (k, domains) losses."""
        return np.stack([f(shares) for f in self.fitted], axis=1)

    def interval(self, shares: np.ndarray, coverage: float = 0.9, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Bounds for what a run at each mixture would measure, (k, domains) each: refits plus cross-validated residuals."""
        tail = (1 - coverage) / 2
        drawn = np.stack([np.stack([f(shares) for f in refit], axis=1) for refit in self.refits] or [self.predict(shares)])
        rng = np.random.default_rng([seed, 3])
        rows = rng.integers(0, len(self.residuals), size=(max(200 // len(drawn), 1), *drawn.shape[:2]))
        noisy = (drawn[None] + self.residuals[rows]).reshape(-1, *drawn.shape[1:])
        low, high = np.quantile(noisy, [tail, 1 - tail], axis=0)
        return low, high


def regress(
    shares: pl.DataFrame,
    losses: pl.DataFrame,
    model: str = "stack",
    bootstrap: int = 20,
    folds: int = 5,
    seed: int = 0,
    own: np.ndarray | None = None,
) -> Regression:
    """Fit `model` to each loss column. Rows of both tables are the same runs; shares are divided by their sum.

    `own` (domains, components) says which part of each component is of each domain, for models that look at a domain's own
    share alone; without it, the component with the domain's name is its own. Raises MidtrainError for an unknown model and
    for fewer runs than twice the folds.
    """
    model = METHOD_MODELS.get(model, model)
    if model not in MODELS:
        raise MidtrainError(f"there is no model {model!r} for mixtures; choose one of {', '.join([*MODELS, *METHOD_MODELS])}")
    if len(shares) != len(losses) or len(shares) < 2 * folds:
        raise MidtrainError(
            f"{len(shares)} mixtures and {len(losses)} rows of losses: need as many of both, at least {2 * folds}"
        )
    x, y = normalised(shares), losses.to_numpy().astype(float)
    parts = _own(shares.columns, losses.columns, own) if model == "bimix" else None

    def make(rows: np.ndarray, j: int) -> Predictor:
        more = {} if parts is None else {"own": parts[j]}
        return MODELS[model](x[rows], y[rows, j], seed, **more)

    rng = np.random.default_rng([seed, 4])
    fold = rng.permutation(len(x)) % folds
    predicted = np.empty_like(y)
    for k in range(folds):
        inside = fold != k
        for j in range(y.shape[1]):
            predicted[~inside, j] = make(np.flatnonzero(inside), j)(x[~inside])
    refits = []
    for _ in range(bootstrap):
        rows = rng.integers(0, len(x), len(x))
        refits.append(tuple(make(rows, j) for j in range(y.shape[1])))
    return Regression(
        model,
        tuple(shares.columns),
        tuple(losses.columns),
        tuple(make(np.arange(len(x)), j) for j in range(y.shape[1])),
        tuple(refits),
        tuple(score(predicted[:, j], y[:, j]) for j in range(y.shape[1])),
        y - predicted,
    )


def _own(components: Sequence[str], domains: Sequence[str], own: np.ndarray | None) -> np.ndarray:
    if own is not None:
        return own
    missing = sorted(set(domains) - set(components))
    if missing:
        raise MidtrainError(f"bimix looks at a domain's own share, and no component is called {', '.join(missing)}")
    return np.array([[float(c == d) for c in components] for d in domains])


def normalised(shares: pl.DataFrame) -> np.ndarray:
    """Shares as an array whose rows sum to one. Raises MidtrainError for a row that does not come near."""
    x = shares.to_numpy().astype(float)
    sums = x.sum(axis=1)
    if not np.isfinite(x).all() or (x < 0).any() or (np.abs(sums - 1) > 0.02).any():
        worst = int(np.argmax(np.abs(np.nan_to_num(sums, nan=np.inf) - 1)))
        raise MidtrainError(f"row {worst + 1} of the mixtures: shares must be at least 0 and sum to 1, not {sums[worst]:g}")
    return x / sums[:, None]


@dataclass(frozen=True)
class Proposal:
    """What the runs recommend."""

    shares: dict[str, float]
    expected: dict[str, tuple[float, float, float]]  # domain → loss, lower, upper bound
    baseline: dict[str, float]
    baseline_expected: dict[str, float]
    gain: float  # of the mean loss over the baseline, nats
    noise: float  # what a difference between two runs may be by chance, nats
    supported: bool
    reason: str


def propose(
    regression: Regression,
    baseline: Mapping[str, float],
    repeat_noise: float | None = None,
    weights: Sequence[float] | None = None,
    caps: Mapping[str, float] | None = None,
    kl: float = 0.05,
    candidates: int = 20_000,
    average: int = 100,
    seed: int = 0,
    general: Collection[str] = (),
    minimum_general_share: float = 0.0,
) -> Proposal:
    """The mixture with the least weighted mean loss, plus `kl` times its divergence from the baseline (Olmix), found as
    RegMix does: simulate mixtures around the baseline, average the best (arXiv 2407.01492). No share exceeds its cap, and
    the `general` components hold their minimum together."""
    from midtrain_dagster.mix.dirichlet import swarm

    fixed = _fixed(regression, baseline)
    weight = _weight(regression, weights)
    around = np.maximum(fixed, 1e-4)
    tried = swarm(around / around.sum(), candidates, seed=seed)
    most = np.array([(caps or {}).get(c, 1.0) for c in regression.components])
    member = np.array([c in general for c in regression.components])
    allowed = (tried <= most).all(axis=1) & (tried[:, member].sum(axis=1) >= minimum_general_share - 1e-9)
    tried = np.concatenate([fixed[None], tried[allowed]])
    divergence = (tried * np.log(np.maximum(tried, 1e-12) / np.maximum(fixed, 1e-6))).sum(axis=1)
    merit = regression.predict(tried) @ weight + kl * divergence
    shares = tried[np.argsort(merit, kind="stable")[:average]].mean(axis=0)
    found = dict(zip(regression.components, shares.tolist(), strict=True))
    return weigh(regression, found, baseline, repeat_noise, weights, seed)


def weigh(
    regression: Regression,
    shares: Mapping[str, float],
    baseline: Mapping[str, float],
    repeat_noise: float | None = None,
    weights: Sequence[float] | None = None,
    seed: int = 0,
) -> Proposal:
    """What is expected of `shares`, however they were found, beside the baseline.

    `repeat_noise` is the standard deviation of the mean loss between repeats that differ in seed alone; the cross-validated
    error stands in for it where there were no repeats, and is the floor where there were. The proposal is supported when
    its gain over the baseline exceeds twice the noise of a difference; otherwise the reason says that the data do not
    support a change.
    """
    fixed, weight = _fixed(regression, baseline), _weight(regression, weights)
    wanted = np.array([shares.get(c, 0.0) for c in regression.components])
    both = np.stack([wanted / wanted.sum(), fixed])
    expected = regression.predict(both)
    low, high = regression.interval(both, seed=seed)
    gain = float((expected[1] - expected[0]) @ weight)
    model_error = float(np.std(regression.residuals @ weight))
    noise = float(np.sqrt(2) * max(model_error, repeat_noise or 0.0))
    supported = gain > 2 * noise
    verdict = "exceeds" if supported else "does not exceed"
    reason = f"expected gain {gain:.4f} nats {verdict} twice the noise of a difference, {2 * noise:.4f}"
    return Proposal(
        {c: float(v) for c, v in zip(regression.components, both[0], strict=True)},
        {d: (float(expected[0, j]), float(low[0, j]), float(high[0, j])) for j, d in enumerate(regression.domains)},
        {c: float(v) for c, v in zip(regression.components, fixed, strict=True)},
        {d: float(expected[1, j]) for j, d in enumerate(regression.domains)},
        gain,
        noise,
        supported,
        reason if supported else f"{reason}: the data do not support a change",
    )


def _fixed(regression: Regression, baseline: Mapping[str, float]) -> np.ndarray:
    fixed = np.array([baseline.get(c, 0.0) for c in regression.components])
    if abs(fixed.sum() - 1) > 0.02:
        raise MidtrainError(f"the fixed mixture's shares sum to {fixed.sum():g} over the runs' components")
    return np.asarray(fixed / fixed.sum())


def _weight(regression: Regression, weights: Sequence[float] | None) -> np.ndarray:
    weight = np.ones(len(regression.domains)) if weights is None else np.asarray(weights, float)
    return np.asarray(weight / weight.sum())


def confirmed(proposal: Sequence[float], fixed: Sequence[float], confidence: float = 0.95) -> tuple[bool, float, float]:
    """Whether measured runs of the proposal, which no fit has seen, beat runs of the fixed mixture by more than the repeat
    noise; the gain; and the half-width of its two-sided interval (Student's t).

    Losses of at least two runs of each, that differ in seed alone. Where both have the same three or more seeds, in the same
    order, the spread is that of the differences at one seed, which share their first weights and their order of documents;
    else it is pooled over both.
    """
    from scipy.stats import t as student

    if min(len(proposal), len(fixed)) < 2:
        raise MidtrainError("a proposal is confirmed by at least two runs of it and two of the fixed mixture")
    gain = float(np.mean(fixed) - np.mean(proposal))
    if len(proposal) == len(fixed) >= 3:
        freedom = len(fixed) - 1
        error = float(np.std(np.subtract(fixed, proposal), ddof=1) / np.sqrt(len(fixed)))
    else:
        freedom = len(proposal) + len(fixed) - 2
        pooled = (np.var(proposal) * len(proposal) + np.var(fixed) * len(fixed)) / freedom
        error = float(np.sqrt(pooled * (1 / len(proposal) + 1 / len(fixed))))
    width = float(student.ppf((1 + confidence) / 2, freedom)) * error
    return gain > width, gain, width
