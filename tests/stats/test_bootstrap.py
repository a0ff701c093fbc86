from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from align_bench.metrics.clusters import cluster_codes
from align_bench.metrics.length_bias import partial_correlation
from align_bench.metrics.resampling import Statistic
from align_bench.stats.bootstrap import difference, won
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


def of(scores: Sequence[np.ndarray], rows: Sequence[int], prompts: Sequence[int] | None = None) -> Statistic:
    (one, other), (long, short) = ([side[list(rows)] for side in group] for group in (scores, shared()))
    return partial_correlation(one, other, long, short, cluster_codes(prompts, len(rows)))


def test_difference_and_interval_against_a_plain_loop() -> None:
    a, b = columns(0.3), columns(0.05)
    prompts = [row // 3 for row in range(ROWS)]
    found = difference(of(a, range(ROWS), prompts), of(b, range(ROWS), prompts), ROWS // 3, ROWS)

    def plain(rows: list[int]) -> float:
        return float((of(a, rows)(np.ones(len(rows))) - of(b, rows)(np.ones(len(rows))))[0])

    draw = random.Random(2)
    drawn = []
    for _ in range(1500):
        own = [draw.randrange(ROWS // 3) for _ in range(ROWS // 3)]
        drawn.append(plain([3 * prompt + place for prompt in own for place in range(3)]))
    assert found.difference == pytest.approx(plain(list(range(ROWS))))
    assert [found.low, found.high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.03)
    assert found.low is not None
    assert found.low > 0
    assert (found.p, found.effect, found.n) == (None, None, ROWS)


def test_swapped_models_mirror_the_difference() -> None:
    a, b = of(columns(0.3), range(ROWS)), of(columns(0.05), range(ROWS))
    there, back = difference(a, b, ROWS, ROWS), difference(b, a, ROWS, ROWS)
    assert there.difference == pytest.approx(-(back.difference or 0))
    assert there.low == pytest.approx(-(back.high or 0))


def test_a_model_against_itself_differs_by_nothing() -> None:
    a = of(columns(0.3), range(ROWS))
    assert difference(a, a, ROWS, ROWS) == Difference(0.0, None, None, None, None, ROWS)


def test_undefined_is_none() -> None:
    flat = of([np.zeros(ROWS)] * 2, range(ROWS))
    assert difference(flat, of(columns(0.3), range(ROWS)), ROWS, ROWS) == undefined(ROWS)
    for rows in (0, 1):
        short = of(columns(0.3), range(rows))
        assert difference(short, short, rows, rows) == undefined(rows)


def undefined(rows: int) -> Difference:
    return Difference(None, None, None, None, None, rows)


def test_an_interval_of_a_higher_level_is_wider() -> None:
    a, b = of(columns(0.3), range(ROWS)), of(columns(0.05), range(ROWS))
    usual, wide = (difference(a, b, ROWS, ROWS, level) for level in (0.95, 0.998))
    assert (wide.low or 0) < (usual.low or 0) < (usual.high or 0) < (wide.high or 0)
    assert difference(a, b, ROWS, ROWS) == usual


def test_win_rates_over_seeds_by_hand() -> None:
    a, b = np.array([[[1.0], [2.0]], [[3.0], [0.0]]]), np.array([[[1.0], [1.0]]])
    assert won(a, b).tolist() == [[[0.5, 1.0]], [[1.0, 0.0]]]


def test_answers_win_and_not_the_means_of_samples() -> None:
    a = np.array([[[3.0, -1.0], [0.0, np.nan]]])  # one seed, two prompts, of which the second one has one sample
    b = np.array([[[0.0, 0.0], [0.0, -1.0]]])
    assert won(a, b).tolist() == [[[0.5, 0.75]]]
    assert won(b, a).tolist() == [[[0.5, 0.25]]]
