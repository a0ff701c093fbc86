"""Where a statistic turns: smallest samples, unequal clusters. Each was a change that no test noticed."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, ttest_1samp

from align_bench.stats.equivalence import prompt_spread, tost_paired, tost_seeds
from align_bench.stats.ranking import friedman, ranks


def test_spread_is_of_differences_over_prompts() -> None:
    a, b = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 5.0]]), np.array([[1.0, 0.0, 7.0]])
    # differences 0 2 −4 and 1 2 −2: variances 28/3 and 13/3, whose mean is 41/6.
    assert prompt_spread(a, b) == pytest.approx(math.sqrt(41 / 6))
    assert prompt_spread(a[:, :2], b[:, :2]) == pytest.approx(math.sqrt((2 + 0.5) / 2))
    assert prompt_spread(a[:, :1], b[:, :1]) is None


def test_equivalence_of_methods_of_which_one_is_constant() -> None:
    assert tost_seeds([1.0, 1.0, 1.0], [0.9, 1.0, 1.1], 0.5) is not None
    assert tost_seeds([0.9, 1.0, 1.1], [1.0, 1.0, 1.0], 0.5) is not None
    assert tost_seeds([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], 0.5) is None
    assert tost_seeds([1.0, 1.1], [1.0, 1.1, 1.2], 0.5) is None


def test_equivalence_is_the_worse_of_two_one_sided_tests() -> None:
    a, b = [1.0, 2.0, 4.0, 3.0], [1.5, 1.0, 4.0, 2.0]
    differences = np.subtract(a, b)
    sides = (
        ttest_1samp(differences, -1.0, alternative="greater").pvalue,
        ttest_1samp(differences, 1.0, alternative="less").pvalue,
    )
    assert tost_paired(a, b, 1.0) == pytest.approx(max(sides))
    assert tost_paired([1.0], [2.0], 1.0) is None
    assert tost_paired([1.0, 2.0], [0.5, 1.5], 1.0) is None


def test_friedman_averages_the_units_of_a_prompt() -> None:
    draw = random.Random(2)
    clusters = [0, 0, 0, 1, 2, 2, 3, 4, 5]
    columns = [[draw.gauss(level, 1) for _ in clusters] for level in (0.0, 0.5, 1.0)]
    means = [
        [
            np.mean([value for value, own in zip(column, clusters, strict=True) if own == cluster])
            for cluster in range(6)
        ]
        for column in columns
    ]
    assert friedman(columns, clusters) == pytest.approx(friedmanchisquare(*means).pvalue)
    assert friedman([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]]) == pytest.approx(
        friedmanchisquare([1.0, 2.0], [2.0, 1.0], [3.0, 3.0]).pvalue
    )
    assert friedman([[1.0], [2.0], [3.0]]) is None
    assert friedman([[], [], []]) is None
    assert friedman([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]) is None


def test_bounds_of_a_rank_are_ranks_that_were_drawn() -> None:
    # The first model is first in 39 of 40 resamples, second in one: a quantile between them was never drawn.
    resampled = np.array([[2.0] * 38 + [0.0] * 2, [1.0] * 40])
    found = ranks([2.0, 1.0], resampled)
    assert (found[0].rank, found[0].low, found[0].high) == (1.0, 1.0, 2.0)
    assert (found[1].rank, found[1].low, found[1].high) == (2.0, 1.0, 2.0)
    assert {one.high for one in ranks([2.0, 1.0], np.array([[2.0] * 39 + [0.0], [1.0] * 40]))} <= {1.0, 2.0}
