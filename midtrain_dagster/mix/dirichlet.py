"""Designs of proxy runs: which mixtures to try, which to hold out, how often to repeat."""

import numpy as np
import polars as pl


def swarm(
    natural: np.ndarray, count: int, strength: tuple[float, float] = (0.1, 5.0), minimum: float = 2e-4, seed: int = 0
) -> np.ndarray:
    """(count, m) mixtures around natural shares: Dirichlet(s · natural^½, normalised, times m), s log-uniform in `strength`;
    shares below `minimum` become 0 (RegMix, arXiv 2407.01492)."""
    rng = np.random.default_rng([seed, 5])
    prior = np.sqrt(natural)
    prior = prior / prior.sum() * len(natural)
    strengths = np.exp(rng.uniform(np.log(strength[0]), np.log(strength[1]), size=count))
    gamma = rng.standard_gamma(np.maximum(strengths[:, None] * prior, 1e-3))
    shares = gamma / np.maximum(gamma.sum(axis=1, keepdims=True), 1e-300)
    shares[~np.isfinite(shares).all(axis=1) | (shares.sum(axis=1) < 0.5)] = natural
    shares[shares < minimum] = 0
    return shares / shares.sum(axis=1, keepdims=True)


def spread(pool: np.ndarray, base: np.ndarray, count: int) -> np.ndarray:
    """`count` mixtures of the pool, each the farthest from `base` and from those already taken (maximin over square roots of
    shares, in which distances count alike for large and small shares): few runs then cover what the pool covers."""
    roots = np.sqrt(pool)
    away = np.linalg.norm(roots - np.sqrt(base), axis=1)
    taken = []
    for _ in range(count):
        i = int(np.argmax(away))
        taken.append(i)
        away = np.minimum(away, np.linalg.norm(roots - roots[i], axis=1))
    return np.asarray(pool[taken])


def design(
    natural: dict[str, float],
    mixtures: int,
    held_out: int,
    repeats: int,
    strength: tuple[float, float] = (0.1, 5.0),
    caps: dict[str, float] | None = None,
    seed: int = 0,
) -> pl.DataFrame:
    """Rows `run, role, seed` and one share column a component. Role `fit` runs are fitted, `held_out` ones only judged,
    `repeat` ones are the natural mixture with different seeds: their spread is the noise. No share exceeds its cap."""
    names = list(natural)
    base = np.array([natural[n] for n in names]) / sum(natural.values())
    most = np.array([(caps or {}).get(n, 1.0) for n in names])
    wanted = mixtures + held_out
    pool = swarm(base, 4 * wanted, strength, seed=seed)
    pool = pool[(pool <= most + 1e-12).all(axis=1)]
    if len(pool) < wanted:  # mixtures that break a cap are pulled towards the natural one
        extra = swarm(base, wanted, strength, seed=seed + 1)
        way = np.min(np.where(extra > base, (most - base) / np.maximum(extra - base, 1e-12), np.inf), axis=1).clip(0, 1)
        pool = np.concatenate([pool, base + way[:, None] * (extra - base)])
    shares = np.concatenate([spread(pool, base, wanted), np.repeat(base[None], repeats, axis=0)])
    roles = ["fit"] * mixtures + ["held_out"] * held_out + ["repeat"] * repeats
    seeds = [seed] * wanted + [seed + i for i in range(repeats)]
    frame = pl.DataFrame({"run": [f"{role}-{i:03}" for i, role in enumerate(roles)], "role": roles, "seed": seeds})
    return frame.with_columns(*(pl.Series(n, shares[:, j]) for j, n in enumerate(names)))
