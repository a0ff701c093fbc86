from __future__ import annotations

import doctest
from collections.abc import Sequence

import pytest

from align_bench.records import Estimate
from align_bench.report import formatting
from align_bench.report.render.csv import section_csv
from align_bench.report.tables.section import Column, Section
from align_bench.report.tables.values import Interval, Spread, Value, count, difference, percent, point, shown, tenths


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(formatting).failed == 0


def test_values_hold_all_digits_and_show_a_few() -> None:
    third = Estimate(1 / 3, 0.25, 0.5, 12)
    made = [point(third), tenths(third), percent(third), difference(1 / 3), shown(1 / 3, formatting.duration)]
    assert [str(value) for value in made] == ["0.333", "0.3", "33.3%", "+0.333", "0.3 s"]
    assert {value.value for value in made} == {1 / 3}
    assert str(Spread(third)) == "0.333 -0.083/+0.167"
    assert str(Interval(-0.25, 1 / 3)) == "[-0.250, +0.333]"


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.40, 0.60, "0.500 ±0.100"),
        (0.403, 0.605, "0.500 ±0.105"),  # the larger side
        (0.40, 0.61, "0.500 ±0.110"),
        (0.40, 0.612, "0.500 -0.100/+0.112"),
        (0.388, 0.60, "0.500 -0.112/+0.100"),
        (0.499, 0.555, "0.500 -0.001/+0.055"),
        (0.501, 0.555, "0.500 +0.001/+0.055"),  # the interval does not hold the value, which is said too
        (0.4988, 0.5009, "0.500 ±0.001"),  # no difference is left after rounding
        (0.5, 0.5, "0.500 ±0.000"),
        (-4000.0, 9000.0, "0.500 -4000/+9000"),
    ],
)
def test_a_lopsided_interval_is_shown_as_two_numbers(low: float, high: float, shown: str) -> None:
    assert str(Spread(Estimate(0.5, low, high))) == shown


def test_undefined_is_said_and_is_no_number() -> None:
    nothing = Estimate(None)
    made = [point(nothing), tenths(nothing), percent(nothing), count(None)]
    assert {str(value) for value in [*made, Spread(nothing), Interval(None, 0.5)]} == {"n/a"}
    assert {value.value for value in made} == {None}


def test_estimates_and_intervals_have_columns_of_their_own_in_csv() -> None:
    columns = [Column("accuracy"), Column("gain"), Column("bare"), Column("n")]
    rows: list[Sequence[Value]] = [
        (Spread(Estimate(0.5, 0.25, 0.75)), Interval(-0.5, 0.25), Spread(Estimate(0.5)), count(3)),
        (Spread(Estimate(0.125)), Interval(None, None), Spread(Estimate(None)), "0.5 ±0.1"),
        (Spread(Estimate(None)), "[0, 1]", "", count(None)),
    ]
    assert section_csv(Section("t", columns, rows)).splitlines() == [
        "accuracy,accuracy low,accuracy high,gain low,gain high,bare,n",
        "0.500,0.250,0.750,-0.500,+0.250,0.500,3",
        "0.125,,,n/a,,n/a,0.5 ±0.1",
        'n/a,,,"[0, 1]",,,n/a',
    ]
