"""Tests between methods, over the means of their seeds. Prompts are no replicates of a method; seeds are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from align_bench.metrics.finite import is_constant
from align_bench.stats.paired import Difference

MIN_SEEDS = 3


def welch(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Welch's t-test between the seed means of two methods (scipy `ttest_ind`, unequal variances).

    Only the difference is defined when a method has fewer than three seeds, or when neither varies over its seeds.

    Args:
        a, b: one mean a seed; the seeds need not match.
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    n = min(len(left), len(right))
    if n == 0:
        return Difference(None, None, None, None, None, 0)
    difference = float(np.mean(left) - np.mean(right))
    if n < MIN_SEEDS or (is_constant(left) and is_constant(right)):
        return Difference(difference, None, None, None, None, n)
    from scipy.stats import ttest_ind

    test = ttest_ind(left, right, equal_var=False)
    interval = test.confidence_interval(0.95)
    return Difference(difference, float(interval.low), float(interval.high), float(test.pvalue), None, n)


def against_fixed(a: Sequence[float], fixed: float) -> Difference:
    """One-sample t-test of a method's seed means against a checkpoint without seeds, the base (scipy `ttest_1samp`).

    Only the difference is defined for fewer than three seeds or constant means.

    Args:
        a: one mean a seed.
        fixed: the base's mean.
    """
    differences = np.asarray(a, dtype=np.float64) - fixed
    n = len(differences)
    if n == 0:
        return Difference(None, None, None, None, None, 0)
    centre = float(np.mean(differences))
    if n < MIN_SEEDS or is_constant(differences):
        return Difference(centre, None, None, None, None, n)
    from scipy.stats import ttest_1samp

    test = ttest_1samp(differences, 0.0)
    interval = test.confidence_interval(0.95)
    return Difference(centre, float(interval.low), float(interval.high), float(test.pvalue), None, n)
