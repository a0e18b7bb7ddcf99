"""Which documents fill each component's budget: a seeded order, pass after pass, and nothing left out unsaid."""

from hashlib import blake2b

import numpy as np
import polars as pl

PIECE_COLUMNS = ("row", "start", "length")


def order_keys(ids: list[str], seed: int) -> np.ndarray:
    """A 64-bit key per document from seed and id: sorting by it is a uniform order that does not depend on the input's."""
    salt = seed.to_bytes(8, "little")
    return np.array(
        [int.from_bytes(blake2b(i.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt).digest(), "little") for i in ids],
        dtype=np.uint64,
    )


def mixed(keys: np.ndarray, number: int) -> np.ndarray:
    """Fresh keys from `keys` and a number (splitmix64's finaliser), so that every pass has its own order."""
    with np.errstate(over="ignore"):
        z = keys + np.uint64((0x9E3779B97F4A7C15 * (number + 1)) % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


class Supply:
    """The documents of one component, served in seeded order, pass after pass."""

    def __init__(self, rows: np.ndarray, tokens: np.ndarray, repetitions: np.ndarray, keys: np.ndarray, max_repetition: float):
        """`rows` are row numbers of the documents; `tokens` how many each has; `repetitions` how often a pass serves it:
        the whole part always, the fraction in that share of the passes."""
        self.rows, self.tokens, self.repetitions, self.keys = rows, tokens, repetitions, keys
        self.max_repetition = max_repetition
        self.passes = 0
        self.served = np.zeros(len(rows), np.int64)  # how far each document has been served
        self._queue = np.empty(0, np.int64)

    def take(self, budget: float, sequence_length: int) -> np.ndarray:
        """Pieces (n, 3) of PIECE_COLUMNS of about `budget` tokens.

        A document that would overshoot is taken whole where that ends nearer to the budget, so the error is at most half
        a sequence; one longer than a sequence gives its beginning, which meets the budget exactly.
        """
        taken: list[np.ndarray] = []
        left = budget
        while left > 0:
            if len(self._queue) == 0 and not self._next_pass():
                break
            lengths = self.tokens[self._queue]
            whole = int(np.searchsorted(np.cumsum(lengths), left, side="right"))
            chosen = self._queue[:whole]
            taken.append(np.stack([chosen, np.zeros_like(chosen), self.tokens[chosen]], axis=1))
            left -= int(lengths[:whole].sum())
            if whole < len(self._queue):
                piece = self._last(int(self._queue[whole]), left, sequence_length)
                if piece:
                    taken.append(np.array([piece]))
                    whole += 1
                left = 0
            self._queue = self._queue[whole:]
        pieces = np.concatenate(taken) if taken else np.empty((0, 3), np.int64)
        np.maximum.at(self.served, pieces[:, 0], pieces[:, 2])
        pieces[:, 0] = self.rows[pieces[:, 0]]
        return pieces

    def _last(self, i: int, left: float, sequence_length: int) -> tuple[int, int, int] | None:
        length = int(self.tokens[i])
        if length > sequence_length:
            return (i, 0, round(left)) if round(left) > 0 else None
        return (i, 0, length) if length - left < left else None

    def _next_pass(self) -> bool:
        if self.passes >= np.ceil(self.max_repetition) or not len(self.rows):
            return False
        while True:
            keys = mixed(self.keys, self.passes)
            chance = (mixed(keys, 0xC0FFEE) >> np.uint64(11)).astype(np.float64) / 2**53
            copies = np.floor(self.repetitions).astype(np.int64) + (chance < self.repetitions % 1)
            order = np.argsort(keys, kind="stable")
            self.passes += 1
            self._queue = np.repeat(order, copies[order])
            if len(self._queue):
                return True
            if self.passes >= np.ceil(self.max_repetition):
                return False


def supplies(
    documents: pl.DataFrame, limits: dict[tuple[str, ...], float], keys: list[str], seed: int
) -> dict[tuple[str, ...], Supply]:
    """One supply a component (and language). `documents` has a unique `id`, `tokens`, `repetitions`, `row` and the `keys`."""
    result = {}
    for key, group in documents.sort("id").partition_by(keys, as_dict=True).items():
        name = tuple(str(part) for part in key)
        if name in limits:
            result[name] = Supply(
                group["row"].to_numpy(),
                group["tokens"].to_numpy(),
                group["repetitions"].cast(pl.Float64).to_numpy(),
                order_keys(group["id"].to_list(), seed),
                limits[name],
            )
    return result
