"""Values that differ by rounding alone are tied in the tests that rank them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, wilcoxon

from align_bench.stats.paired import wilcoxon_p
from align_bench.stats.ranking import friedman


def test_wilcoxon_ties_what_rounding_tells_apart() -> None:
    a, b = [0.3, 0.8, 1.0, 2.2, 1.7, 0.6], [0.1, 0.6, 1.2, 1.1, 0.2, 0.6]
    differences = np.subtract(a, b)
    assert len(np.unique(np.abs(differences))) == 6  # 0.2 in three forms
    expected = wilcoxon([2, 2, -2, 11, 15, 0], zero_method="pratt").pvalue
    assert wilcoxon_p(a, b) == pytest.approx(expected, rel=1e-12)
    assert wilcoxon(differences, zero_method="pratt").pvalue != pytest.approx(expected, rel=1e-6)


def test_wilcoxon_takes_a_sum_that_is_zero_but_for_rounding_as_zero() -> None:
    a, clusters = [0.1, 0.2, -0.3, 1.0, 2.0, 3.0, -1.5], [0, 0, 0, 1, 2, 3, 4]
    assert sum(a[:3]) != 0
    expected = wilcoxon([0, 1, 2, 3, -1.5], zero_method="pratt").pvalue
    assert wilcoxon_p(a, [0.0] * 7, clusters) == pytest.approx(expected, rel=1e-12)


def test_friedman_ties_sums_in_another_order() -> None:
    # One prompt with three pairs, of which one model is given the values in another order, and four with one pair.
    one = [0.1, 0.2, 0.3, 5.0, 6.0, 7.0, 8.0]
    two = [0.3, 0.2, 0.1, 4.0, 5.0, 8.0, 6.0]
    three = [0.2, 0.3, 0.4, 3.0, 7.0, 6.0, 5.0]
    assert sum(one[:3]) != sum(two[:3])
    expected = friedmanchisquare([0.6, 5, 6, 7, 8], [0.6, 4, 5, 8, 6], [0.9, 3, 7, 6, 5]).pvalue
    assert friedman([one, two, three], [0, 0, 0, 1, 2, 3, 4]) == pytest.approx(expected, rel=1e-12)
