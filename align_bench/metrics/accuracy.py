"""Shares of pairs and answers that are right, with Wilson's 95% interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from align_bench.metrics.clusters import Clusters, cluster_codes, clustered_mean, is_clustered
from align_bench.metrics.finite import Column, Numbers, finite
from align_bench.records import Estimate


def accuracy(chosen: Numbers, rejected: Numbers, prompts: Clusters | None = None) -> Estimate:
    """Share of pairs whose chosen answer has the higher score; a tie counts as ½.

    `(wins + ties / 2) / n`. Pairs with a missing or non-finite score are left out; None without any pair. Its interval
    is that of `clustered_share`.

    Args:
        chosen, rejected: the two scores of each pair, in any unit.
        prompts: the prompt of each pair; None when each has its own.
    """
    codes = cluster_codes(prompts, len(chosen))
    wins, losses, own = finite(chosen, rejected, codes)
    return _share_of(wins_of(wins - losses), own)


def correctness(chosen: Numbers, rejected: Numbers) -> list[float]:
    """1 where the chosen score is higher, ½ for a tie, else 0, for each pair of finite scores."""
    wins, losses = finite(chosen, rejected)
    return [float(won) for won in wins_of(wins - losses)]


def wins_of(margins: Column) -> Column:
    """1 for a margin above 0, ½ for a tie, else 0; in the margins' shape, NaN where a margin is."""
    won: Column = (np.sign(margins) + 1) / 2
    return won


def tie_rate(chosen: Numbers, rejected: Numbers, prompts: Clusters | None = None) -> Estimate:
    """Share of pairs with two exactly equal scores. A collapsed reward model shows here first.

    Args:
        chosen, rejected, prompts: as in `accuracy`.
    """
    left, right, codes = finite(chosen, rejected, cluster_codes(prompts, len(chosen)))
    return _share_of((left == right).astype(np.float64), codes)


def longer_wins(chosen_lengths: Numbers, rejected_lengths: Numbers, prompts: Clusters | None = None) -> Estimate:
    """Accuracy of preferring the longer answer: the baseline to hold every accuracy against; equal lengths count ½."""
    return accuracy(chosen_lengths, rejected_lengths, prompts)


def clustered_share(values: Numbers, prompts: Clusters | None = None) -> Estimate:
    """Mean over pairs of what is 1, ½ or 0 in each, with its 95% interval; `n` counts pairs, which weigh the same.

    The interval is Wilson's where each pair has its own prompt. Else it is Student's with the standard error clustered
    over prompts, cut off at 0 and 1; or, where all prompts are alike (as without any tie), Wilson's of the prompts.

    Args:
        values: one a pair; None and non-finite ones are left out.
        prompts: the prompt of each pair; None when each has its own.
    """
    return _share_of(*finite(values, cluster_codes(prompts, len(values))))


def gold_accuracy(right: Sequence[bool]) -> Estimate:
    """Share of independent answers (one a prompt) that the gold judge finds right."""
    return share(float(sum(bool(answer) for answer in right)), len(right))


def _share_of(values: Column, codes: Column) -> Estimate:
    if not is_clustered(codes):
        return share(float(values.sum()), len(values))
    found = clustered_mean(values, codes)
    if found.low is None or found.high is None:
        prompts = len(np.unique(codes))
        alike = share(round(2 * prompts * float(values.mean())) / 2, prompts)
        return replace(found, low=alike.low, high=alike.high) if prompts > 1 else found
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def share(count: float, n: int) -> Estimate:
    """`count / n` with Wilson's score interval (Wilson 1927), bit for bit that of scipy's `BinomTestResult`.

    scipy's own is had by way of `binomtest` only, whose p-value, which nobody asks for, takes 99% of the time.

    A half count (a tie) has no binomial: the lower bound is that of the count rounded down, the upper one that of the
    count rounded up. So the interval covers both outcomes and mirrors itself when the pairs' sides are swapped.

    Args:
        count: successes, in halves.
        n: trials; None results without any.
    """
    if n == 0:
        return Estimate(None)
    low, _ = _wilson(math.floor(count), n)
    _, high = _wilson(math.ceil(count), n)
    return Estimate(count / n, low, high, n)


def _wilson(count: int, n: int) -> tuple[float, float]:
    from scipy.special import ndtri

    z, p = float(ndtri(0.975)), count / n
    size = 2 * (n + z**2)
    centre, half = (2 * n * p + z**2) / size, z / size * math.sqrt(4 * n * p * (1 - p) + z**2)
    return centre - half if count else 0.0, centre + half if count < n else 1.0
