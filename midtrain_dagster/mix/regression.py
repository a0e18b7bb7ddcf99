"""Losses of mixtures from shares: the models that proxy runs are regressed with.

Each model is fitted to shares (n, m) and losses (n,) and predicts losses (k,). All are deterministic given the seed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Predictor = Callable[[np.ndarray], np.ndarray]


def linear(shares: np.ndarray, losses: np.ndarray, seed: int = 0) -> Predictor:
    """Ridge on the shares (RegMix's linear baseline, arXiv 2407.01492)."""
    return _ridge(lambda x: x, shares, losses, 1e-6)


def quadratic_sqrt(shares: np.ndarray, losses: np.ndarray, seed: int = 0, strength: float = 0.01) -> Predictor:
    """Ridge on shares, their square roots, and all products of both: square roots bend steeply where a share is small,
    which is where losses do."""

    def features(x: np.ndarray) -> np.ndarray:
        both = np.concatenate([x, np.sqrt(np.maximum(x, 0))], axis=1)
        i, j = np.triu_indices(both.shape[1])
        return np.concatenate([both, both[:, i] * both[:, j]], axis=1)

    return _ridge(features, shares, losses, strength)


def _ridge(features: Callable[[np.ndarray], np.ndarray], shares: np.ndarray, losses: np.ndarray, strength: float) -> Predictor:
    x = features(shares)
    mean, middle = x.mean(axis=0), losses.mean()
    centred = x - mean
    weights = np.linalg.solve(centred.T @ centred + strength * np.eye(x.shape[1]), centred.T @ (losses - middle))
    return lambda new: (features(new) - mean) @ weights + middle


def exponential(shares: np.ndarray, losses: np.ndarray, seed: int = 0, starts: int = 4, delta: float = 0.02) -> Predictor:
    """L(r) = c + exp(b + Σ_j t_j r_j) with Huber loss, L-BFGS from several starts (Data Mixing Laws, arXiv 2403.16952). A trace
    of a ridge keeps slopes that few runs do not determine from running away; many runs do not feel it."""
    return _exponential(shares, losses, seed, starts, delta, 0.1 / len(losses))


def log_linear(shares: np.ndarray, losses: np.ndarray, seed: int = 0) -> Predictor:
    """f(p) = c + exp(aᵀp), one a domain: Olmix's model of each task (arXiv 2602.12237), convex in the shares. Its slopes are
    held together by a ridge, so that it can be fitted to hardly more runs than there are components."""
    return _exponential(shares, losses, seed, 4, 0.02, 1 / len(losses))


def _exponential(shares: np.ndarray, losses: np.ndarray, seed: int, starts: int, delta: float, ridge: float) -> Predictor:
    from scipy.optimize import minimize

    rng = np.random.default_rng([seed, shares.shape[1]])
    lowest, n = losses.min(), len(losses)

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        c, growth = np.exp(theta[0]), np.exp(np.clip(theta[1] + shares @ theta[2:], -30, 30))
        r = (c + growth - losses) / delta
        slope = np.clip(r, -1, 1) / delta / n
        value = np.where(np.abs(r) <= 1, 0.5 * r * r, np.abs(r) - 0.5).mean() + 0.5 * ridge * (theta[2:] ** 2).sum()
        gradient = np.concatenate([[slope.sum() * c, (slope * growth).sum()], (slope * growth) @ shares + ridge * theta[2:]])
        return float(value), gradient

    found = []
    for fraction in np.linspace(0.5, 0.98, starts):
        rest = np.maximum(losses - fraction * lowest, 1e-6)
        design = np.concatenate([np.ones((n, 1)), shares], axis=1)
        guess = np.linalg.solve(design.T @ design + 0.1 * np.eye(design.shape[1]), design.T @ np.log(rest))
        begin = np.concatenate([[np.log(fraction * lowest)], guess + rng.normal(0, 0.01, len(guess))])
        found.append(minimize(objective, begin, jac=True, method="L-BFGS-B", options={"maxiter": 500}))
    theta = min(found, key=lambda f: float(f.fun)).x
    return lambda new: np.exp(theta[0]) + np.exp(np.clip(theta[1] + new @ theta[2:], -30, 30))


def bimix(shares: np.ndarray, losses: np.ndarray, seed: int = 0, own: np.ndarray | int = 0, floor: float = 1e-3) -> Predictor:
    """log L = a − α·log r, α ≥ 0, of the domain's own share r: BiMix at a fixed number of steps (arXiv 2405.14908).

    `own` is the column of the domain, or for each column which part of it is of the domain, (m); shares below `floor` count
    as `floor`."""
    part = np.eye(shares.shape[1])[own] if np.ndim(own) == 0 else np.asarray(own, float)
    x = np.log(np.maximum(shares @ part, floor))
    slope = min(float(np.polyfit(x, np.log(losses), 1)[0]), 0.0) if np.ptp(x) > 0 else 0.0
    intercept = float(np.mean(np.log(losses) - slope * x))
    return lambda new: np.exp(intercept + slope * np.log(np.maximum(new @ part, floor)))


def lightgbm(shares: np.ndarray, losses: np.ndarray, seed: int = 0) -> Predictor:
    """Boosted trees as RegMix fits them: 1000 rounds, rate 0.01, stopped early on a fifth (arXiv 2407.01492)."""
    return _trees(shares, losses, seed, 0.01, 1000, 3)


def _trees(shares: np.ndarray, losses: np.ndarray, seed: int, rate: float, rounds: int, patience: int) -> Predictor:
    import lightgbm as lgb

    held = np.random.default_rng(seed).permutation(len(losses))[: max(1, len(losses) // 5)]
    rest = np.setdiff1d(np.arange(len(losses)), held)
    train = lgb.Dataset(shares[rest], losses[rest])
    parameters = {
        "objective": "l2",
        "learning_rate": rate,
        "seed": seed,
        "num_threads": 1,
        "deterministic": True,
        "verbose": -1,
    }
    parameters["min_data_in_leaf"] = max(2, min(20, len(rest) // 8))
    booster = lgb.train(
        parameters,
        train,
        num_boost_round=rounds,
        valid_sets=[lgb.Dataset(shares[held], losses[held], reference=train)],
        callbacks=[lgb.early_stopping(patience, verbose=False)],
    )
    return lambda new: np.asarray(booster.predict(new))


MANY = 64  # runs from which trees have something to say


def stack(shares: np.ndarray, losses: np.ndarray, seed: int = 0) -> Predictor:
    """The mean of the quadratic model, the exponential one and, where runs are many, boosted trees: the first follows a size's
    own curvature, the second has few parameters and carries best to larger models, the third assumes no shape. They err apart."""
    members = [quadratic_sqrt(shares, losses, seed), exponential(shares, losses, seed, starts=2)]
    if len(losses) >= MANY:
        members.append(_trees(shares, losses, seed, 0.05, 200, 10))
    return lambda new: np.mean([m(new) for m in members], axis=0)


@dataclass(frozen=True)
class Score:
    """How a model does on runs it has not seen."""

    spearman: float
    mae: float  # nats
    points: int


def score(predicted: np.ndarray, measured: np.ndarray) -> Score:
    from scipy.stats import spearmanr

    rank = float(spearmanr(predicted, measured).statistic) if len(measured) > 2 else float("nan")
    return Score(rank, float(np.abs(predicted - measured).mean()), len(measured))


MODELS: dict[str, Callable[..., Predictor]] = {
    "linear": linear,
    "quadratic_sqrt": quadratic_sqrt,
    "exponential": exponential,
    "log_linear": log_linear,
    "lightgbm": lightgbm,
    "bimix": bimix,
    "stack": stack,
}
METHOD_MODELS = {"regmix": "lightgbm", "regmix_linear": "linear", "mixing_law": "exponential", "olmix": "log_linear"}
"""Names of methods → the model that each regresses with."""
