"""Which settings are tried."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any, cast

import pytest

from align_bench.api import Algorithm, Loss, PairLogps, Range, algorithm
from align_bench.planning.tuning import points
from align_bench.suite.models import Tune


@algorithm(data="pairs", paper="none", learning_rate=1e-4, learning_rate_range=(1e-5, 1e-2), reward="s")
def searched(
    logps: PairLogps,
    *,
    beta: Annotated[float, Range(0, 1)] = 0.5,
    steps: Annotated[int, Range(1, 3)] = 2,
    plain: float = 7,
) -> Loss:
    """Has three ranges."""
    raise NotImplementedError


@algorithm(data="pairs", paper="none", learning_rate=1e-4, reward="s")
def fixed(logps: PairLogps, *, beta: float = 0.5) -> Loss:
    """Has no range."""
    raise NotImplementedError


GIVEN = {"learning_rate": 1.0, "beta": 9.0, "steps": 5, "plain": 8.0}


def tried(declared: Algorithm = searched, **tune: Any) -> list[dict[str, float]]:
    """The points, of whose parameters all are numbers."""
    found = points(declared, GIVEN, Tune(**tune))
    assert all(isinstance(value, int | float) for point in found for value in point.values())
    return cast("list[dict[str, float]]", found)


@pytest.mark.parametrize("search", ["random", "grid"])
@pytest.mark.parametrize("trials", [2, 5, 20])
def test_the_given_setting_and_then_points_of_the_ranges(search: str, trials: int) -> None:
    first, *others = tried(search=search, trials=trials)
    assert first == GIVEN
    assert len(others) == trials - 1
    for point in others:
        assert list(point) == list(GIVEN)
        assert all(point[name] in span for name, span in searched.ranges.items())
        assert type(point["steps"]) is int
        assert point["plain"] == 8.0
    assert tried(search=search, trials=trials) == [first, *others]
    assert tried(search=search, trials=trials, seed=1) != [first, *others]


def test_more_random_trials_keep_the_earlier_ones() -> None:
    assert tried(trials=9)[:4] == tried(trials=4)


def test_random_learning_rates_are_spread_over_their_magnitudes() -> None:
    rates = [point["learning_rate"] for point in tried(trials=301)[1:]]
    decades = [sum(low <= rate < 10 * low for rate in rates) for low in (1e-5, 1e-4, 1e-3)]
    assert all(70 < count < 130 for count in decades)


def test_full_grid_is_the_product_of_equal_steps() -> None:
    grid = {tuple(point[name] for name in searched.ranges) for point in tried(search="grid", trials=28)[1:]}
    assert grid == set(itertools.product((1e-5, 3.16e-4, 1e-2), (0, 0.5, 1), (1, 2, 3)))


def test_part_of_a_grid_has_no_point_twice() -> None:
    drawn = [tuple(point.items()) for point in tried(search="grid", trials=7)[1:]]
    assert len(set(drawn)) == 6
    assert {dict(point)["learning_rate"] for point in drawn} == {1e-5, 1e-2}


def test_method_without_ranges_has_no_trials() -> None:
    assert tried(fixed) == []


def test_logarithmic_steps() -> None:
    rates = sorted(point["learning_rate"] for point in tried(search="grid", trials=65, seed=3)[1:])
    assert [f"{math.log10(rate):.1f}" for rate in sorted(set(rates))] == ["-5.0", "-4.0", "-3.0", "-2.0"]
