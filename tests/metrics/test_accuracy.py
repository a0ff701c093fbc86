from __future__ import annotations

import math

import pytest
from scipy.stats import binomtest

from align_bench.metrics.accuracy import accuracy, correctness, gold_accuracy, longer_wins, share, tie_rate
from align_bench.records import Estimate

Z = 1.959963984540054


def wilson(count: float, n: int, sign: int) -> float:
    share = count / n
    centre = share + Z * Z / (2 * n)
    spread = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return (centre + sign * spread) / (1 + Z * Z / n)


def test_accuracy_counts_wins_by_hand() -> None:
    found = accuracy([2.0, 1.0, 5.0, -1.0], [1.0, 3.0, 4.0, -2.0])
    assert found.value == 0.75
    assert found.n == 4
    assert found.low == pytest.approx(wilson(3, 4, -1), rel=1e-9)
    assert found.high == pytest.approx(wilson(3, 4, +1), rel=1e-9)


def test_swapped_sides_mirror_value_and_interval() -> None:
    chosen, rejected = [2.0, 1.0, 0.0, 4.0, 4.0], [1.0, 3.0, 0.0, 1.0, 2.0]
    found, mirrored = accuracy(chosen, rejected), accuracy(rejected, chosen)
    assert found.value == 0.7
    assert mirrored.value == pytest.approx(0.3)
    assert mirrored.low == pytest.approx(1 - (found.high or 0))
    assert mirrored.high == pytest.approx(1 - (found.low or 0))


def test_a_tie_counts_half_and_its_interval_covers_both_outcomes() -> None:
    found = accuracy([1.0, 1.0, 0.0], [1.0, 0.0, 1.0])
    assert found.value == 0.5
    assert found.low == pytest.approx(wilson(1, 3, -1), rel=1e-9)
    assert found.high == pytest.approx(wilson(2, 3, +1), rel=1e-9)


def test_a_collapsed_model_scores_half_and_ties_everywhere() -> None:
    assert accuracy([0.3] * 8, [0.3] * 8).value == 0.5
    assert tie_rate([0.3] * 8, [0.3] * 8).value == 1.0
    assert tie_rate([0.3, 0.1], [0.3, 0.2]).value == 0.5


def test_pairs_without_a_finite_score_are_left_out() -> None:
    found = accuracy([1.0, None, math.nan, math.inf, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0])
    assert (found.value, found.n) == (0.5, 2)


def test_no_pairs_is_undefined() -> None:
    assert accuracy([], []) == tie_rate([], []) == gold_accuracy([]) == Estimate(None)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        accuracy([1.0, 2.0], [1.0])


def test_correctness_row_by_row() -> None:
    assert correctness([2.0, 1.0, 0.0], [1.0, 1.0, 3.0]) == [1.0, 0.5, 0.0]


def test_longer_wins_prefers_the_longer_answer() -> None:
    assert longer_wins([10, 3, 5, 7], [4, 9, 5, 1]).value == 0.625


@pytest.mark.parametrize("n", [1, 2, 7, 60, 1000])
def test_a_share_has_the_interval_of_scipy(n: int) -> None:
    for halves in {0, 1, 2, n - 1, n, n + 1, 2 * n - 1, 2 * n}:
        low, high = (
            binomtest(count, n).proportion_ci(0.95, method="wilson") for count in (halves // 2, (halves + 1) // 2)
        )
        assert share(halves / 2, n) == Estimate(halves / 2 / n, low.low, high.high, n)


def test_gold_accuracy_and_share() -> None:
    assert gold_accuracy([True, False, True, True]) == share(3, 4)
    assert share(0, 5).low == 0.0
    assert share(0, 5).high == pytest.approx(Z * Z / (5 + Z * Z), rel=1e-9)
