from __future__ import annotations

import random

import numpy as np
import pytest

from align_bench.metrics.length_bias import partial_correlation
from align_bench.stats.bootstrap import paired_bootstrap, percentiles
from align_bench.stats.paired import Difference

ROWS = 150


def columns(slope: float, noise: float = 1.0) -> list[np.ndarray]:
    """Scores of two answers by a model that prefers length by `slope` a word; every model sees the same answers."""
    words = shared()
    draw = np.random.default_rng(int(100 * slope))
    return [slope * side + draw.normal(0, noise, ROWS) for side in words]


def shared() -> list[np.ndarray]:
    draw = np.random.default_rng(5)
    return [draw.integers(1, 30, ROWS).astype(float) for _ in range(2)]


def test_difference_and_interval_against_a_plain_loop() -> None:
    a, b, words = columns(0.3), columns(0.05), shared()
    found = paired_bootstrap(partial_correlation, a, b, words)

    def difference(rows: list[int]) -> float:
        one, other, lengths = ([column[rows] for column in group] for group in (a, b, words))
        return float(partial_correlation(*one, *lengths) - partial_correlation(*other, *lengths))

    draw = random.Random(2)
    drawn = [difference([draw.randrange(ROWS) for _ in range(ROWS)]) for _ in range(1000)]
    assert found.difference == pytest.approx(difference(list(range(ROWS))))
    assert [found.low, found.high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.03)
    assert found.low is not None
    assert found.low > 0
    assert (found.p, found.effect, found.n) == (None, None, ROWS)


def test_swapped_models_mirror_the_difference() -> None:
    a, b, words = columns(0.3), columns(0.05), shared()
    there, back = (paired_bootstrap(partial_correlation, *pair, words) for pair in ((a, b), (b, a)))
    assert there.difference == pytest.approx(-(back.difference or 0))
    assert there.low == pytest.approx(-(back.high or 0))


def test_a_model_against_itself_differs_by_nothing() -> None:
    a = columns(0.3)
    found = paired_bootstrap(partial_correlation, a, a, shared())
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)


def test_undefined_is_none() -> None:
    flat, words = [np.zeros(ROWS)] * 2, shared()
    assert paired_bootstrap(partial_correlation, flat, columns(0.3), words) == undefined(ROWS)
    for rows in (0, 1):
        short = [column[:rows] for column in columns(0.3)]
        assert paired_bootstrap(partial_correlation, short, short, [word[:rows] for word in words]) == undefined(rows)


def undefined(rows: int) -> Difference:
    return Difference(None, None, None, None, None, rows)


def test_two_rows_have_an_interval() -> None:
    # Means of 1 and 3 drawn twice: 1, 2 or 3, and either end in one resample of four.
    found = paired_bootstrap(mean, [np.array([1.0, 3.0])], [np.zeros(2)], [])
    assert found == Difference(2.0, 1.0, 3.0, None, None, 2)


def mean(column: np.ndarray, axis: int = -1) -> np.ndarray:
    return column.mean(axis)


def test_percentiles_by_hand() -> None:
    # 41 values in a row: a fortieth of them lies below the second and above the last but one.
    low, high = percentiles(np.arange(41.0)[::-1])
    assert (low, high) == (1.0, 39.0)
    assert type(low) is type(high) is float
