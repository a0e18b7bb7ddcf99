"""Where a question begins to ask: its last sentence, after what it tells. Questions on one passage, or under one instruction, differ there."""

import re

import numpy as np

from midtrain_dagster.decontaminate.words import Words

LEAST = 5  # words; a shorter last sentence goes with the one before it
MOST, SHARE = 8, 5  # words at the end, or one in so many of all: no tail is longer
END = re.compile(r"[.!?:;][\"'”’)\]]*\s|\n")  # of a sentence


def tails(units: Words, whole: np.ndarray) -> np.ndarray:
    """The first word of each unit's tail (int64, among all words). `whole`: units whose tail is not cut at a sentence, for they end with
    examples or options and not with what they ask."""
    ends = units.offsets[1:]
    first = np.maximum(units.offsets[:-1], ends - np.maximum(MOST, np.diff(units.offsets) // SHARE))
    for unit in np.flatnonzero(~whole & (ends - first > LEAST)).tolist():
        begin, last = int(units.starts[first[unit]]), int(units.starts[ends[unit] - LEAST])
        text = units.data[begin : units.text_offsets[unit + 1]].tobytes().decode("utf-8", "ignore")
        stops = [begin + len(text[: found.end()].encode()) for found in END.finditer(text)]
        before = [stop for stop in stops if stop <= last]
        if before:
            first[unit] = np.searchsorted(units.starts[: ends[unit]], before[-1])
    return first
