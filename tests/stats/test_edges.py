"""Where a statistic turns: smallest samples, unequal clusters. Each was a change that no test noticed."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy import stats
from scipy.stats import friedmanchisquare, ttest_1samp
from statsmodels.stats.weightstats import DescrStatsW

from align_bench.stats.equivalence import prompt_spread, tost_paired
from align_bench.stats.paired import mcnemar_exact
from align_bench.stats.power import detectable_between_seeds, detectable_effect
from align_bench.stats.ranking import friedman


def test_spread_is_of_differences_over_prompts() -> None:
    a, b = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 5.0]]), np.array([[1.0, 0.0, 7.0]])
    # differences 0 2 −4 and 1 2 −2: variances 28/3 and 13/3, whose mean is 41/6.
    assert prompt_spread(a, b) == pytest.approx(math.sqrt(41 / 6))
    assert prompt_spread(a[:, :2], b[:, :2]) == pytest.approx(math.sqrt((2 + 0.5) / 2))
    assert prompt_spread(a[:, :1], b[:, :1]) is None


def test_equivalence_is_the_worse_of_two_one_sided_tests() -> None:
    a, b = [1.0, 2.0, 4.0, 3.0], [1.5, 1.0, 4.0, 2.0]
    differences = np.subtract(a, b)
    sides = (
        ttest_1samp(differences, -1.0, alternative="greater").pvalue,
        ttest_1samp(differences, 1.0, alternative="less").pvalue,
    )
    assert tost_paired(a, b, 1.0) == pytest.approx(max(sides))
    assert tost_paired(a, b, 1.0) == DescrStatsW(np.subtract(a, b)).ttost_mean(-1.0, 1.0)[0]
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


@pytest.mark.parametrize("n", [2, 5, 60])
@pytest.mark.parametrize("tests", [1, 7])
def test_at_the_detectable_effect_the_power_is_four_fifths(n: int, tests: int) -> None:
    """By the noncentral t distribution, one-sided at alpha / 2 of one test of the family."""
    paired, between = detectable_effect(n, tests), detectable_between_seeds(n, tests)
    assert paired is not None
    assert between is not None
    for effect, df, scale in ((paired, n - 1, math.sqrt(n)), (between, 2 * n - 2, math.sqrt(n / 2))):
        critical = stats.t.ppf(1 - 0.05 / tests / 2, df)
        assert stats.nct.sf(critical, df, effect * scale) == pytest.approx(0.8, abs=1e-5)


def test_what_cannot_be_detected_is_undefined() -> None:
    for found in (detectable_effect, detectable_between_seeds):
        assert found(1) is found(0) is found(50, 0) is None


def test_discordant_pairs_that_balance_are_a_test_and_none_are_not() -> None:
    balanced = mcnemar_exact([1.0, 0.0, 1.0], [0.0, 1.0, 1.0])
    assert (balanced.difference, balanced.p, balanced.n) == (0.0, 1.0, 3)
    nothing = mcnemar_exact([1.0, 0.0], [1.0, 0.0])
    assert (nothing.difference, nothing.low, nothing.p, nothing.n) == (0.0, None, None, 2)
