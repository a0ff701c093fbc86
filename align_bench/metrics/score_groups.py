"""The course's two groups of scores, and the test between them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from align_bench.metrics.finite import Column, Numbers, finite, is_constant


@dataclass(frozen=True, slots=True)
class ScoreGroups:
    """The higher score of every question, by whose it is.

    Attributes:
        correct: scores of preferred answers, shape [pairs that are ranked as the label does].
        wrong: scores of the other answers, shape [pairs that are ranked against it].
        ties: pairs without a higher score, which are in neither.
    """

    correct: Column
    wrong: Column
    ties: int


@dataclass(frozen=True, slots=True)
class WelchTest:
    """Welch's t-test between two independent groups. Undefined is None.

    Attributes:
        difference: mean of the first group − mean of the second, in the reward's unit.
        low, high: its 95% interval.
        t, df: statistic and degrees of freedom.
        p: two-sided p-value.
    """

    difference: float | None
    low: float | None
    high: float | None
    t: float | None
    df: float | None
    p: float | None


def score_groups(chosen: Numbers, rejected: Numbers) -> ScoreGroups:
    """For each question the higher of its two scores: correct when the preferred answer has it, else wrong.

    Pairs with a missing or non-finite score are left out.

    Args:
        chosen, rejected: the two scores of each pair, in any unit.
    """
    left, right = finite(chosen, rejected)
    return ScoreGroups(left[left > right], right[right > left], int(np.sum(left == right)))


def welch_test(a: Numbers, b: Numbers) -> WelchTest:
    """Welch's t-test, two-sided (scipy `ttest_ind`, unequal variances).

    Only the difference is defined when a group has fewer than two scores, or when neither group varies; nothing is
    when one is empty.

    Args:
        a, b: scores of the two groups; missing and non-finite ones are left out.
    """
    (left,), (right,) = finite(a), finite(b)
    if not len(left) or not len(right):
        return WelchTest(None, None, None, None, None, None)
    difference = float(np.mean(left) - np.mean(right))
    if min(len(left), len(right)) < 2 or (is_constant(left) and is_constant(right)):
        return WelchTest(difference, None, None, None, None, None)
    from scipy.stats import ttest_ind

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)  # one group may be constant
        test = ttest_ind(left, right, equal_var=False)
    interval = test.confidence_interval(0.95)
    return WelchTest(
        difference, float(interval.low), float(interval.high), float(test.statistic), float(test.df), float(test.pvalue)
    )
