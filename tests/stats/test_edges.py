"""Where a statistic turns: smallest samples, unequal clusters. Each was a change that no test noticed."""

from __future__ import annotations

import math
import random
import warnings

import numpy as np
import pytest
from scipy import stats
from scipy.stats import friedmanchisquare, ttest_1samp

from align_bench.stats.equivalence import prompt_spread, tost_paired, tost_seeds
from align_bench.stats.paired import mcnemar_exact
from align_bench.stats.power import detectable_between_seeds, detectable_effect
from align_bench.stats.ranking import friedman, ranks
from align_bench.stats.seeds import against_fixed, welch


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


def test_methods_count_the_seeds_of_the_smaller_one() -> None:
    left, right = [1.0, 2.0, 4.0, 3.0], [1.0, 1.5, 0.5]
    found, scipys = welch(left, right), stats.ttest_ind(left, right, equal_var=False)
    assert found.n == 3
    assert found.p == pytest.approx(scipys.pvalue)
    assert found.p != pytest.approx(stats.ttest_ind(left, right, equal_var=True).pvalue, rel=1e-3)
    assert (found.low, found.high) == pytest.approx(scipys.confidence_interval(0.95))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)  # scipy doubts a group without spread
        assert welch([1.0, 1.0, 1.0], [0.0, 0.5, 1.5]).p is not None
    few = welch([1.0, 2.0], [0.5, 1.5, 3.0])
    assert few.difference == pytest.approx(1.5 - 5 / 3)
    assert (few.p, few.n) == (None, 2)
    assert (welch([], [1.0]).difference, welch([], [1.0]).n) == (None, 0)


def test_a_method_against_the_base_has_an_interval_on_both_sides() -> None:
    means = [1.0, 2.0, 4.0]
    found, scipys = against_fixed(means, 1.0), stats.ttest_1samp(means, 1.0)
    bounds = scipys.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((bounds.low - 1, bounds.high - 1))
    assert (found.difference, found.p) == pytest.approx((4 / 3, scipys.pvalue))
    assert found.n == 3
    few, constant, none = against_fixed([1.0, 2.0], 1.0), against_fixed([2.0] * 3, 1.0), against_fixed([], 1.0)
    assert (few.difference, few.p, few.n) == (0.5, None, 2)
    assert (constant.difference, constant.p, constant.n) == (1.0, None, 3)
    assert (none.difference, none.n) == (None, 0)
