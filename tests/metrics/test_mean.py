"""Means with their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from align_bench.metrics.mean import mean
from align_bench.records import Estimate


@pytest.mark.parametrize("n", [2, 3, 30, 1000])
def test_the_interval_is_that_of_scipy(n: int) -> None:
    values = np.random.default_rng(n).normal(3.0, 2.0, n)
    low, high = stats.t.interval(0.95, n - 1, loc=np.mean(values), scale=stats.sem(values))
    found = mean(values)
    assert (found.value, found.low, found.high, found.n) == (float(np.mean(values)), float(low), float(high), n)


def test_numbers_whose_squares_are_no_numbers_have_no_interval() -> None:
    found = mean([1e-200, 2e-200, 3e-200])
    assert found == Estimate(found.value, n=3)
    assert found.value == pytest.approx(2e-200, abs=0)
