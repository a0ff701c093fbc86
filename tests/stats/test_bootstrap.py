from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest

from align_bench.metrics.length_bias import partial_correlation
from align_bench.stats.bootstrap import paired_bootstrap, percentiles, resampled_win_rates, won
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
        (a1, a2), (b1, b2), (long, short) = ([column[rows] for column in group] for group in (a, b, words))
        return float(partial_correlation(a1, a2, long, short) - partial_correlation(b1, b2, long, short))

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
    means: np.ndarray = column.mean(axis)
    return means


def test_percentiles_by_hand() -> None:
    # 41 values in a row: a fortieth of them lies below the second and above the last but one.
    low, high = percentiles(np.arange(41.0)[::-1])
    assert (low, high) == (1.0, 39.0)
    assert type(low) is type(high) is float


def test_win_rates_over_seeds_by_hand() -> None:
    a, b = np.array([[[1.0], [2.0]], [[3.0], [0.0]]]), np.array([[[1.0], [1.0]]])
    assert won(a, b).tolist() == [[[0.5, 1.0]], [[1.0, 0.0]]]
    drawn_rates = resampled_win_rates([a, b])
    assert drawn_rates.shape == (1, 2000)
    # either prompt twice, or both: means over the two seeds of ¾, ½ or between
    assert set(np.round(drawn_rates[0], 9)) == {0.5, 0.625, 0.75}
    with pytest.raises(ValueError, match="two prompts"):
        resampled_win_rates([a[:, :1], b[:, :1]])


def test_win_rates_resample_seeds_too() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(3, 40)) + np.array([[0.0], [1.0], [2.0]]), rng.normal(size=(4, 40))
    found = resampled_win_rates([a[..., None], b[..., None]])[0]
    draw = random.Random(0)
    plain = []
    for _ in range(3000):
        units = [draw.randrange(40) for _ in range(40)]
        seeds = [draw.randrange(3) for _ in range(3)], [draw.randrange(4) for _ in range(4)]
        plain.append(np.mean([(a[i][units] > b[j][units]).mean() for i, j in product(*seeds)]))
    assert found.mean() == pytest.approx(np.mean(plain), abs=0.01)
    assert found.std() == pytest.approx(np.std(plain), rel=0.08)


def test_a_method_of_one_seed_may_come_first() -> None:
    rng = np.random.default_rng(4)
    one, three = rng.normal(size=(1, 20, 1)), rng.normal(size=(3, 20, 1))
    assert resampled_win_rates([one, three]) == pytest.approx(1 - resampled_win_rates([three, one]))


def test_answers_win_and_not_the_means_of_samples() -> None:
    a = np.array([[[3.0, -1.0], [0.0, np.nan]]])  # one seed, two prompts, of which the second one has one sample
    b = np.array([[[0.0, 0.0], [0.0, -1.0]]])
    assert won(a, b).tolist() == [[[0.5, 0.75]]]
    assert won(b, a).tolist() == [[[0.5, 0.25]]]
