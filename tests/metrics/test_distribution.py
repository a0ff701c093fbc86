from __future__ import annotations

import math
import random
import statistics

import pytest

from align_bench.metrics.distribution import Distribution, describe


def test_distribution_by_hand() -> None:
    found = describe([1.0, None, 2.0, 4.0, math.nan, 9.0, 4.0])
    assert found == Distribution(7, 5, 4.0, found.std, 2.0, 4.0, 4.0)
    assert found.std == pytest.approx(statistics.stdev([1, 2, 4, 9, 4]), rel=1e-12)


def test_quartiles_are_linear_between_neighbours() -> None:
    draw = random.Random(3)
    values = [draw.gauss(0, 1) for _ in range(14)]
    found = describe(values)
    quartiles = statistics.quantiles(values, n=4, method="inclusive")
    assert [found.q1, found.median, found.q3] == pytest.approx(quartiles, rel=1e-12)


def test_few_values_leave_undefined_what_they_cannot_say() -> None:
    assert describe([]) == Distribution(0, 0, None, None, None, None, None)
    assert describe([None, None]) == Distribution(2, 0, None, None, None, None, None)
    assert describe([3.0]) == Distribution(1, 1, 3.0, None, 3.0, 3.0, 3.0)
    assert describe([1.0, 3.0]).std == pytest.approx(math.sqrt(2))
