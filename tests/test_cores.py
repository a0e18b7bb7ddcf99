"""Work spread over cores: every row once, in order, whatever the number of cores."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midtrain_dagster import cores
from midtrain_dagster.cores import spread


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 6), st.integers(1, 20), st.integers(0, 100))
def test_every_row_is_worked_on_once_and_in_order(lengths, number, least, begin):
    offsets = begin + np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cores, "cores", lambda: number)
        parts = spread(lambda first, end: list(range(first, end)), offsets, least)
    assert [row for part in parts for row in part] == list(range(len(lengths)))
    assert len(parts) <= max(1, min(number, sum(lengths) // least))


def test_ranges_are_worked_on_at_the_same_time(monkeypatch):
    monkeypatch.setattr(cores, "cores", lambda: 2)
    both = threading.Barrier(2, timeout=20)
    assert spread(lambda first, end: both.wait() >= 0 and end - first, np.arange(11), 1) == [5, 5]
    with pytest.raises(ZeroDivisionError):
        spread(lambda first, end: 1 // first, np.arange(11), 1)
