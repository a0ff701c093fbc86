from __future__ import annotations

import math
import random

from align_bench.metrics.pareto import pareto


def test_pareto_by_hand() -> None:
    #      cheap and bad, dear and good, dearer and no better, worse than the first, equal to the second
    costs, qualities = [1.0, 5.0, 6.0, 2.0, 5.0], [0.1, 0.9, 0.9, 0.05, 0.9]
    assert pareto(costs, qualities) == [True, True, False, False, True]
    assert pareto([1.0, 1.0], [0.5, 0.6]) == [False, True]
    assert pareto([1.0, None, 3.0, math.nan], [0.5, 0.9, None, 0.9]) == [True, None, None, None]
    assert pareto([], []) == []


def test_pareto_equals_its_definition() -> None:
    draw = random.Random(5)
    points = [(draw.randint(0, 6), draw.randint(0, 6)) for _ in range(40)]
    costs, qualities = [float(cost) for cost, _ in points], [float(quality) for _, quality in points]
    for (cost, quality), kept in zip(points, pareto(costs, qualities), strict=True):
        as_cheap = [other for other_cost, other in points if other_cost <= cost]
        cheaper = [other for other_cost, other in points if other_cost < cost]
        assert kept == (quality == max(as_cheap) and quality > max(cheaper, default=-1))
