from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel
from statsmodels.stats.multitest import multipletests

from align_bench.stats.paired import Difference, floored, holm, mcnemar_exact, paired_t
from align_bench.stats.power import detectable_effect

T_4 = 2.7764451051977987  # 97.5% quantile of Student's t with 4 degrees of freedom


def t_tail(t: float, freedom: float, steps: int = 200_000) -> float:
    """Two-sided p-value by Simpson's rule on Student's density."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    width = abs(t) / steps
    total = sum(
        (1 if k in (0, steps) else 4 if k % 2 else 2) * (1 + (k * width) ** 2 / freedom) ** (-(freedom + 1) / 2)
        for k in range(steps + 1)
    )
    return float(1 - 2 * scale * total * width / 3)


def test_paired_t_by_its_definition() -> None:
    a, b = [3.0, 1.0, 4.0, 1.0, 5.0], [-2.0, 0.0, 1.0, 2.0, 3.0]
    differences = [5.0, 1.0, 3.0, -1.0, 2.0]
    sd = statistics.stdev(differences)
    found = paired_t(a, b)
    assert found.difference == pytest.approx(2.0)
    assert found.low == pytest.approx(2.0 - T_4 * sd / math.sqrt(5), rel=1e-12)
    assert found.high == pytest.approx(2.0 + T_4 * sd / math.sqrt(5), rel=1e-12)
    assert found.effect == pytest.approx(2.0 / sd, rel=1e-12)
    assert found.p == pytest.approx(t_tail(2.0 / (sd / math.sqrt(5)), 4), abs=1e-9)
    assert found.n == 5


def test_the_tests_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 8, 60, 1000):
        a, b = rng.normal(size=(2, n))
        found, test = paired_t(a, b), ttest_rel(a, b)
        interval = test.confidence_interval(0.95)
        assert (found.low, found.high, found.p, found.df) == (interval.low, interval.high, test.pvalue, n - 1)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 101, 1000])
def test_mcnemar_has_the_p_and_the_interval_of_scipys_binomial_test(n: int) -> None:
    for count in {0, 1, n // 3, n // 2, (n + 1) // 2, n - 1, n}:
        exact = binomtest(count, n)
        interval = exact.proportion_ci(0.95, method="exact")
        sides = [1.0] * count + [0.0] * (n - count), [0.0] * count + [1.0] * (n - count)
        found, paired = mcnemar_exact(*sides), paired_t(*sides)
        ends = 2 * interval.low - 1, 2 * interval.high - 1
        assert found.p == max(exact.pvalue, paired.p or 0.0)
        widest = (
            min(ends[0], ends[0] if paired.low is None else paired.low),
            max(ends[1], ends[1] if paired.high is None else paired.high),
        )
        assert (found.low, found.high) == pytest.approx(widest, abs=1e-11)  # scipy searches for the ends


def test_differences_whose_squares_are_0_have_no_test() -> None:
    found = paired_t([1e-200, 2e-200, 3e-200], [0.0, 0.0, 0.0])
    assert found.difference == pytest.approx(2e-200)
    assert (found.low, found.high, found.p, found.effect) == (None, None, None, None)


def test_swapped_sides_turn_every_sign() -> None:
    a, b = [3.0, 1.0, 4.0, 1.5], [-2.0, 0.0, 1.0, 2.0]
    found, turned = paired_t(a, b), paired_t(b, a)
    assert (turned.difference, turned.low, turned.high, turned.effect) == pytest.approx(
        (-(found.difference or 0), -(found.high or 0), -(found.low or 0), -(found.effect or 0))
    )
    assert turned.p == pytest.approx(found.p)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([], [], Difference(None, None, None, None, None, 0)),
        ([1.0], [0.0], Difference(1.0, None, None, None, None, 1)),
        ([1.0, 2.0], [0.0, 1.0], Difference(1.0, None, None, None, None, 2)),
        ([1.0, 2.0], [1.0, 2.0], Difference(0.0, None, None, None, None, 2)),
    ],
)
def test_undefined_is_none(a: list[float], b: list[float], expected: Difference) -> None:
    assert paired_t(a, b) == expected
    assert mcnemar_exact(a, a).p is None


def test_differences_that_vary_by_rounding_only_are_constant() -> None:
    a = [0.1 + k for k in range(9)]
    assert paired_t(a, [value - 0.3 for value in a]).p is None


def test_unpaired_or_infinite_values_are_refused() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        paired_t([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="finite"):
        mcnemar_exact([1.0, math.nan], [1.0, 0.0])


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs() -> None:
    a = [1.0] * 9 + [0.0] * 2 + [1.0] * 30 + [0.0] * 20
    b = [0.0] * 9 + [1.0] * 2 + [1.0] * 30 + [0.0] * 20
    by_hand = 2 * sum(math.comb(11, k) for k in range(3)) / 2**11
    found = mcnemar_exact(a, b)
    assert found.p == pytest.approx(by_hand, rel=1e-12)
    assert found.difference == pytest.approx(7 / 61)
    assert found.effect is None
    # The exact test is the wider one here, and its share of the 11 discordant pairs is a difference of 61.
    share = binomtest(9, 11).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx(((2 * share.low - 1) * 11 / 61, paired_t(a, b).high))
    assert (mcnemar_exact(b, a).difference, mcnemar_exact(b, a).p) == pytest.approx((-7 / 61, by_hand))


def test_the_interval_beside_mcnemar_excludes_zero_where_its_p_is_below_five_percent() -> None:
    """It was the paired t's alone, beside a p of McNemar's: p 0.063 with an interval above 0."""
    before = [1.0] * 5 + [0.0] * 60, [0.0] * 5 + [0.0] * 60
    t, found = paired_t(*before), mcnemar_exact(*before)
    assert (t.low or 0) > 0
    assert found.p == pytest.approx(0.0625)
    assert (found.low or 0) < 0 < (found.high or 0)
    rng = np.random.default_rng(0)
    tables = [([1.0] * n, [0.0] * n) for n in range(1, 12)]  # without a t: all differences are alike
    for _ in range(400):
        n, marks = int(rng.integers(1, 80)), [0.0, 0.5, 1.0] if rng.random() < 0.4 else [0.0, 1.0]
        skill, agreement = rng.beta(0.4, 0.4), rng.random()
        a = rng.choice(marks, n)
        b = np.where(rng.random(n) < agreement, a, np.where(rng.random(n) < skill, 0.0, rng.choice(marks, n)))
        tables.append((a.tolist(), b.tolist()))
    decided = 0
    for a_marks, b_marks in tables:
        found = mcnemar_exact(a_marks, b_marks)
        if found.p is None:
            assert (found.low, found.difference) == (None, 0.0)
            continue
        assert found.low is not None
        assert found.high is not None
        assert (not found.low <= 0 <= found.high) == (found.p < 0.05)
        assert found.low <= (found.difference or 0) <= found.high
        if found.p < 0.05:
            decided += 1
            assert ((found.difference or 0) > 0) == (found.low > 0)
    assert 50 < decided < len(tables) - 50


def test_tests_that_point_in_opposite_directions_show_nothing() -> None:
    """Forty half wins against 25 whole losses: more wins, a lower mean."""
    found = mcnemar_exact([0.5] * 40 + [0.0] * 25, [0.0] * 40 + [1.0] * 25)
    assert found.difference == pytest.approx(-5 / 65)
    assert found.p == 1.0
    assert (found.low or 0) < 0 < (found.high or 0)


def test_mcnemar_takes_ties_as_half() -> None:
    found = mcnemar_exact([1.0, 0.5, 0.5, 0.0], [0.5, 0.5, 0.0, 0.0])
    assert found.difference == pytest.approx(0.25)
    assert found.p == pytest.approx(0.5)


def test_holm_by_its_steps() -> None:
    # Sorted: .01·4, .02·3, .03·2, .5·1, each at least its predecessor.
    assert holm([0.03, 0.01, None, 0.5, 0.02]) == [
        pytest.approx(0.06),
        pytest.approx(0.04),
        None,
        pytest.approx(0.5),
        pytest.approx(0.06),
    ]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([None]) == [None]
    assert holm([]) == []


def test_holm_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(4)
    for count in (1, 2, 7, 40):
        values = np.round(rng.uniform(0, 0.2, count), 2)  # with ties
        assert holm(values.tolist()) == pytest.approx(multipletests(values, method="holm")[1].tolist(), rel=1e-12)


def test_two_identical_methods_with_seed_noise_look_different_by_prompt() -> None:
    """Why the levels are kept apart: a paired test over prompts finds seed noise."""
    rng = random.Random(0)
    found = 0
    for _ in range(60):
        seeds = rng.gauss(0, 0.1), rng.gauss(0, 0.1)
        a, b = ([seed + rng.gauss(0, 1) for _ in range(1000)] for seed in seeds)
        found += (paired_t(a, b).p or 1) < 0.05
    assert found / 60 > 0.2


def test_detectable_effect_of_a_thousand_pairs() -> None:
    assert detectable_effect(1000) == pytest.approx(0.089, abs=5e-4)
    assert detectable_effect(1000, 21) == pytest.approx(0.123, abs=5e-4)


def test_detectable_effect_follows_the_normal_approximation() -> None:
    # (z(1 − 0.05/2/5) + z(0.8)) / √n
    assert detectable_effect(20_000, 5) == pytest.approx((2.5758293 + 0.8416212) / math.sqrt(20_000), rel=1e-3)
    assert detectable_effect(500, 1000) == pytest.approx(0.2208, abs=1e-3)


def test_detectable_effect_is_undefined_without_pairs_or_tests() -> None:
    assert detectable_effect(1) is None
    assert detectable_effect(100, 0) is None
    assert detectable_effect(2, 1000) is None


def test_no_p_value_is_kept_as_zero() -> None:
    noise = np.random.default_rng(0).normal(size=4000)
    found = paired_t(noise + 1000, noise * 1.1)
    assert found.p == 0  # it has underflowed
    assert (floored(found.p), floored(0.2), floored(None)) == (1e-300, 0.2, None)


def test_two_pairs_have_a_test() -> None:
    # Mean 2, standard error 1; Student's t with one degree of freedom is Cauchy's distribution.
    found = paired_t([1.0, 3.0], [0.0, 0.0])
    assert (found.low, found.high) == pytest.approx((2 - 12.7062047364, 2 + 12.7062047364))
    assert found.p == pytest.approx(1 - 2 * math.atan(2) / math.pi)


def test_detectable_effect_of_very_many_pairs() -> None:
    # Below the first effect that is tried, 0.001.
    assert detectable_effect(10**8) == pytest.approx((1.9599640 + 0.8416212) / 10**4, rel=1e-5)
