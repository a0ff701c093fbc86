"""Which settings are tried, and which rows are held out."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any

import pytest

from align_bench.api import Algorithm, Loss, PairLogps, Range, algorithm
from align_bench.errors import DataError
from align_bench.records import TokenRow
from align_bench.suite.models import Tune
from align_bench.tune import best, cut, points


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


def tried(declared: Algorithm = searched, **tune: Any) -> list[dict[str, Any]]:
    return points(declared, GIVEN, Tune(**tune))


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


def rows(*prompts: int, chosen: bool = True) -> list[TokenRow]:
    return [TokenRow(pair, (prompt,), (1, pair) if chosen else None, (2, pair)) for pair, prompt in enumerate(prompts)]


@pytest.mark.parametrize("seed", range(20))
def test_no_prompt_is_on_both_sides_and_none_of_val_is_held_out(seed: int) -> None:
    every = rows(*(number % 10 for number in range(40)))
    apart = {(0,), (1,), (99,)}
    kept, held = cut(every, apart, Tune(seed=seed, holdout=0.25))
    assert not {row.prompt for row in kept} & {row.prompt for row in held}
    assert not {row.prompt for row in held} & apart
    assert sorted(kept + held, key=lambda row: row.pair) == every
    assert len({row.prompt for row in held}) == 2, "a quarter of the eight prompts that are not in val"
    assert len(held) == 8, "all four rows of each"


def test_cut_follows_its_seed() -> None:
    every = rows(*range(30))
    assert cut(every, (), Tune()) == cut(every, (), Tune(trials=9, search="grid"))
    assert cut(every, (), Tune()) != cut(every, (), Tune(seed=1))


def test_held_out_rows_with_one_answer_are_left_out() -> None:
    every = [*rows(1, 2, 3, 4), *rows(1, 2, 3, 4, chosen=False)]
    kept, held = cut(every, (), Tune(holdout=0.5))
    assert (len(kept), len(held)) == (4, 2)
    assert all(row.chosen and row.rejected for row in held)


@pytest.mark.parametrize(
    ("every", "apart"),
    [(rows(1, 1, 1), ()), (rows(1, 2, 3), {(1,), (2,), (3,)}), (rows(1, 2, 3, chosen=False), ())],
)
def test_cut_that_leaves_nothing_on_one_side_is_refused(every: list[TokenRow], apart: Any) -> None:
    with pytest.raises(DataError, match=r"tune\.holdout=0\.2 .* rows to train on and \d pairs to measure on"):
        cut(every, apart, Tune())


@pytest.mark.parametrize(
    ("scores", "number"),
    [
        ([0.5, 0.7, 0.6], 1),
        ([0.7, 0.7], 0),
        ([None, 0.1], 1),
        ([0.2, None, 0.3, 0.3], 2),
        ([None, None], 0),
        ([0.0], 0),
    ],
)
def test_best_is_the_highest_and_the_earlier_of_equals(scores: list[float | None], number: int) -> None:
    assert best(scores) == number


def test_logarithmic_steps() -> None:
    rates = sorted(point["learning_rate"] for point in tried(search="grid", trials=65, seed=3)[1:])
    assert [f"{math.log10(rate):.1f}" for rate in sorted(set(rates))] == ["-5.0", "-4.0", "-3.0", "-2.0"]
