"""Many small robust least-squares problems at once: every start, every refit and every fold is a row of one array."""

from collections.abc import Callable

import numpy as np

STEP = 1e-6  # of central differences
RIDGE = 1e-3  # in units of delta: keeps what the data do not determine from wandering off


def levenberg_marquardt(
    log_loss: Callable[[np.ndarray], np.ndarray],
    begin: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    delta: float,
    iterations: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise Σ weight·Huber((log_loss(θ) − target)/delta) in each row, by Levenberg–Marquardt with reweighting.

    `log_loss` takes parameters (k, p) to logarithms of losses (k, n); `begin` (m, p); `target` and `weight` (m, n). Returns
    the parameters (m, p) and the costs (m,). Deterministic; a row never ends worse than it began.
    """
    theta = begin.copy()
    m, p = theta.shape
    steps = STEP * np.concatenate([np.eye(p), -np.eye(p)])
    damping = np.full(m, 1e-2)
    cost, _, _ = _cost(log_loss(theta), theta, target, weight, delta)
    active = np.arange(m)
    for _ in range(iterations):
        now = theta[active]
        many = np.concatenate([now[:, None], now[:, None] + steps], axis=1).reshape(-1, p)
        values = log_loss(many).reshape(len(active), 2 * p + 1, -1)
        _, r, bend = _cost(values[:, 0], now, target[active], weight[active], delta)
        jacobian = np.clip(np.nan_to_num((values[:, 1 : p + 1] - values[:, p + 1 :]) / (2 * STEP * delta)), -1e8, 1e8)
        bent = jacobian * bend[:, None]
        gradient = (bent @ r[:, :, None])[:, :, 0] + RIDGE**2 * now
        normal = bent @ jacobian.transpose(0, 2, 1) + RIDGE**2 * np.eye(p)
        diagonal = np.einsum("kii->ki", normal)
        diagonal += damping[active, None] * (diagonal + 1e-9)
        tried = now - np.linalg.solve(normal, gradient[:, :, None])[:, :, 0].clip(-3, 3)
        reached, _, _ = _cost(log_loss(tried), tried, target[active], weight[active], delta)
        better = reached < cost[active]
        gained = np.where(better, cost[active] - reached, np.inf)
        theta[active[better]], cost[active[better]] = tried[better], reached[better]
        damping[active] = np.clip(damping[active] * np.where(better, 0.3, 4.0), 1e-9, 1e9)
        done = (gained < 1e-9 * (cost[active] + 1e-9)) | (damping[active] >= 1e8)
        active = active[~done]
        if not len(active):
            break
    return theta, cost


def _cost(
    values: np.ndarray, theta: np.ndarray, target: np.ndarray, weight: np.ndarray, delta: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cost (m,), residuals in units of delta (m, n), and the weight of each in the next least-squares step."""
    r = np.clip(np.nan_to_num((values - target) / delta, nan=1e6, posinf=1e6, neginf=-1e6), -1e6, 1e6)
    size = np.abs(r)
    cost = (weight * np.where(size <= 1, 0.5 * r * r, size - 0.5)).sum(axis=1) + 0.5 * RIDGE**2 * (theta**2).sum(axis=1)
    return cost, r, weight / np.maximum(size, 1.0)
