"""Tests between two checkpoints measured on the same prompts. The claim is about them, not their methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from align_bench.metrics.clusters import Clusters, are_alike, cluster_codes, clustered_fit, is_clustered
from align_bench.metrics.finite import tied

Vector = npt.NDArray[np.float64]
Values = Sequence[float] | Vector

SMALLEST_P = 1e-300  # below it a double says nothing of a p-value's size


@dataclass(frozen=True, slots=True)
class Difference:
    """A tested difference `a − b`. Undefined is None, never 0.

    Attributes:
        difference: mean of a − b.
        low, high: its 95% interval.
        p: two-sided p-value.
        effect: Cohen's dz (mean / standard deviation of the differences); None where the test has none.
        n: observations: pairs, or seeds of the smaller group.
        df: degrees of freedom of the t-test, where it is one.
    """

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    effect: float | None
    n: int
    df: float | None = None


def paired_t(a: Values, b: Values, clusters: Clusters | None = None) -> Difference:
    """Paired t-test (bit for bit scipy's `ttest_rel`, without what that does for arrays) with Cohen's dz.

    Where several pairs share a prompt, its standard error is clustered over prompts: statsmodels' OLS of the
    differences on a constant, with the small-sample correction and G − 1 degrees of freedom for G prompts. With one
    pair a prompt the two are the same test. Only the mean is defined for fewer than two prompts, and where the mean
    difference is the same on each.

    Args:
        a, b: finite values of the same pairs in the same order.
        clusters: the prompt of each pair; None when each has its own.

    Raises:
        ValueError: different lengths, or a value that is not finite.
    """
    left, right = _aligned(a, b)
    differences = left - right
    n = len(differences)
    if n == 0:
        return Difference(None, None, None, None, None, 0)
    centre = float(np.mean(differences))
    codes = cluster_codes(clusters, n)
    if are_alike(differences, codes) or not (spread := float(np.std(differences, ddof=1))):  # squares that underflow
        return Difference(centre, None, None, None, None, n)
    effect = centre / spread
    if is_clustered(codes):
        fit = clustered_fit(differences, codes)
        low, high = fit.conf_int(0.05)[0]
        return Difference(centre, float(low), float(high), float(fit.pvalues[0]), effect, n, float(codes.max()))
    from scipy.special import stdtr, stdtrit

    error = float(np.sqrt(np.var(differences) * (n / (n - 1)) / n))
    half = float(stdtrit(n - 1, 0.975)) * error
    p = 2 * float(stdtr(n - 1, -abs(centre / error)))
    return Difference(centre, centre - half, centre + half, p, effect, n, float(n - 1))


def wilcoxon_p(a: Values, b: Values, clusters: Clusters | None = None) -> float | None:
    """Two-sided p-value of Wilcoxon's signed-rank test (scipy `wilcoxon`, `zero_method="pratt"`).

    Differences of one prompt are averaged first, since the test takes its observations for independent; those that
    differ by rounding at most are tied. None for fewer than two prompts and for differences that are all 0.

    Args:
        a, b, clusters: as in `paired_t`.
    """
    left, right = _aligned(a, b)
    codes = cluster_codes(clusters, len(left))
    means = tied(np.bincount(codes, left - right) / np.bincount(codes))
    if len(means) < 2 or not means.any():
        return None
    from scipy.stats import wilcoxon

    return float(wilcoxon(means, zero_method="pratt").pvalue)


def mcnemar_exact(a: Values, b: Values) -> Difference:
    """Exact McNemar test beside a paired t, with the interval that goes with both.

    The exact test, a two-sided binomial test of the discordant pairs at ½ (scipy `binomtest`), has no interval of the
    difference, and the paired t is not exact. So p is the larger of the two, and the interval holds both: that of the
    t, and Clopper–Pearson's of the share of discordant pairs that a wins, as a difference. It excludes 0 where p is
    below 5%, and nowhere else. A tie counts as ½ in a and b; a pair is discordant when a and b differ. Where ties make
    the two point in opposite directions, neither is shown: p is 1. p is None without discordant pairs. Both tests take
    pairs for independent: where several share a prompt, use `paired_t` with clusters.

    Args:
        a, b: 1 right, 0 wrong, ½ tie, for the same pairs in the same order.

    Raises:
        ValueError: different lengths, or a value that is not finite.
    """
    left, right = _aligned(a, b)
    mean = paired_t(left, right)
    only_a, only_b = int(np.sum(left > right)), int(np.sum(left < right))
    if only_a + only_b == 0:
        return Difference(mean.difference, None, None, None, None, mean.n)
    p, *shares = _binomial_test(only_a, only_a + only_b)
    size = float(np.sum(np.abs(left - right))) / mean.n  # of the difference, if one side won every discordant pair
    low, high = ((2 * share - 1) * size for share in shares)
    if mean.low is not None and mean.high is not None and mean.p is not None:
        low, high, p = min(low, mean.low), max(high, mean.high), max(p, mean.p)
    opposite = (only_a - only_b) * (mean.difference or 0.0) < 0
    return Difference(mean.difference, low, high, 1.0 if opposite else p, None, mean.n)


def _binomial_test(count: int, n: int) -> tuple[float, float, float]:
    """The two-sided p-value at ½, as of scipy's `binomtest`, and Clopper–Pearson's interval.

    That one searches for the counts that are no likelier than this one, which symmetry tells here.
    """
    from scipy.special import betaincinv
    from scipy.stats import binom

    less, tail = min(count, n - count), (1 - 0.95) / 2
    p = 1.0 if 2 * count == n else min(1.0, float(binom.cdf(less, n, 0.5) + binom.sf(n - less - 1, n, 0.5)))
    low = float(betaincinv(count, n - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
    return p, low, high


def paired_shares(a: Values, b: Values, clusters: Clusters) -> tuple[str, Difference]:
    """The test between two models that are right or wrong on the same pairs, by the name that a reader would cite.

    `mcnemar_exact`, or the clustered `paired_t` where several pairs share a prompt.

    Args:
        a, b: as in `mcnemar_exact`.
        clusters: the prompt of each pair.
    """
    if is_clustered(cluster_codes(clusters, len(a))):
        return "clustered t", paired_t(a, b, clusters)
    return "exact McNemar, paired t", mcnemar_exact(a, b)


def floored(p: float | None) -> float | None:
    """A p-value as reports keep it: never 0, since no test rules chance out; 1e-300 stands for that or less."""
    return None if p is None else max(p, SMALLEST_P)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values (1979) in the order given; None stays None and is no test.

    The smallest of m is multiplied by m, the next by m − 1, and so on; none is below the one before it nor above 1.
    statsmodels' `multipletests` gives the same, and collects garbage at each call, which takes longer than a report.
    """
    order = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, at) in enumerate(order):
        least = max(least, min(1.0, p * (len(order) - rank)))
        adjusted[at] = least
    return adjusted


def _aligned(a: Values, b: Values) -> tuple[Vector, Vector]:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"paired values of different lengths: {len(left)} and {len(right)}")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ValueError("paired values must be finite")
    return left, right
