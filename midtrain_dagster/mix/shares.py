"""Rules that turn counts of tokens into shares. Arrays in, arrays out; shares sum to one."""

import numpy as np


def natural(tokens: np.ndarray) -> np.ndarray:
    """Shares by tokens."""
    return tokens / tokens.sum()


def temperature(tokens: np.ndarray, tau: float) -> np.ndarray:
    """p_i ∝ n_i^(1/τ): τ = 1 natural, τ → ∞ equal (arXiv 1907.05019)."""
    scaled = (tokens / tokens.max()) ** (1 / tau)
    return scaled / scaled.sum()


def equal(tokens: np.ndarray) -> np.ndarray:
    """Equal shares of all that have tokens. Under caps (`capped`) this is UniMax (arXiv 2304.09151): serving the smallest
    first and dividing what it cannot take among the rest ends in the same shares."""
    return (tokens > 0) / (tokens > 0).sum()


def capped(weights: np.ndarray, caps: np.ndarray, total: float = 1.0) -> np.ndarray:
    """Shares proportional to `weights`, none above its cap, summing to `total`: what a cap takes away goes to the others.

    Raises ValueError where the caps of components with weight do not reach `total`.
    """
    weights, caps = np.asarray(weights, float), np.asarray(caps, float)
    if caps[weights > 0].sum() < total * (1 - 1e-9):
        raise ValueError(f"caps sum to {caps[weights > 0].sum():g}, less than {total:g}")
    shares = np.zeros(len(weights))
    free = weights > 0
    while free.any():
        left = total - shares[~free].sum()
        trial = weights * (max(left, 0.0) / weights[free].sum())
        over = free & (trial > caps)
        if not over.any():
            shares[free] = trial[free]
            break
        shares[over] = caps[over]
        free &= ~over
    return shares


def with_minimum(weights: np.ndarray, caps: np.ndarray, member: np.ndarray, minimum: float) -> np.ndarray:
    """Capped shares of which the `member` components (boolean) hold at least `minimum` together.

    Raises ValueError where caps make that impossible.
    """
    shares = capped(weights, caps)
    if shares[member].sum() >= minimum - 1e-12:
        return shares
    result = np.zeros(len(weights))
    result[member] = capped(weights[member], caps[member], minimum)
    result[~member] = capped(weights[~member], caps[~member], 1 - minimum)
    return result
