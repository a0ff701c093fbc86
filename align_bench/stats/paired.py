"""Tests between two checkpoints measured on the same prompts. The claim is about them, not their methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from align_bench.metrics.clusters import Clusters, are_alike, cluster_codes, clustered_fit, is_clustered

Vector = npt.NDArray[np.float64]
Values = Sequence[float] | Vector


@dataclass(frozen=True, slots=True)
class Difference:
    """A tested difference `a − b`. Undefined is None, never 0.

    Attributes:
        difference: mean of a − b.
        low, high: its 95% interval.
        p: two-sided p-value.
        effect: Cohen's dz (mean / standard deviation of the differences); None where the test has none.
        n: observations: pairs, or seeds of the smaller group.
    """

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    effect: float | None
    n: int


def paired_t(a: Values, b: Values, clusters: Clusters | None = None) -> Difference:
    """Paired t-test (scipy `ttest_rel`) with Cohen's dz.

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
    if are_alike(differences, codes):
        return Difference(centre, None, None, None, None, n)
    effect = centre / float(np.std(differences, ddof=1))
    if is_clustered(codes):
        fit = clustered_fit(differences, codes)
        low, high = fit.conf_int(0.05)[0]
        return Difference(centre, float(low), float(high), float(fit.pvalues[0]), effect, n)
    from scipy.stats import ttest_rel

    test = ttest_rel(left, right)
    interval = test.confidence_interval(0.95)
    return Difference(centre, float(interval.low), float(interval.high), float(test.pvalue), effect, n)


def wilcoxon_p(a: Values, b: Values, clusters: Clusters | None = None) -> float | None:
    """Two-sided p-value of Wilcoxon's signed-rank test (scipy `wilcoxon`, `zero_method="pratt"`).

    Differences of one prompt are averaged first, since the test takes its observations for independent. None for
    fewer than two prompts and for differences that are all 0.

    Args:
        a, b, clusters: as in `paired_t`.
    """
    left, right = _aligned(a, b)
    codes = cluster_codes(clusters, len(left))
    means = np.bincount(codes, left - right) / np.bincount(codes)
    if len(means) < 2 or not means.any():
        return None
    from scipy.stats import wilcoxon

    return float(wilcoxon(means, zero_method="pratt").pvalue)


def mcnemar_exact(a: Values, b: Values) -> Difference:
    """Exact McNemar test: a two-sided binomial test of the discordant pairs at ½ (scipy `binomtest`).

    The interval is the paired t one of the difference in accuracy, since the test itself gives none. A tie counts ½ in
    a and b; a pair is discordant when a and b differ. p is None without discordant pairs. The test takes pairs for
    independent: where several share a prompt, use `paired_t` with clusters.

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
    from scipy.stats import binomtest

    p = float(binomtest(only_a, only_a + only_b).pvalue)
    return Difference(mean.difference, mean.low, mean.high, p, None, mean.n)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values (statsmodels `multipletests`) in the order given; None stays None and is no test."""
    known = [p for p in p_values if p is not None]
    if not known:
        return [None] * len(p_values)
    from statsmodels.stats.multitest import multipletests

    adjusted = iter(multipletests(known, method="holm")[1])
    return [None if p is None else float(next(adjusted)) for p in p_values]


def _aligned(a: Values, b: Values) -> tuple[Vector, Vector]:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"paired values of different lengths: {len(left)} and {len(right)}")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ValueError("paired values must be finite")
    return left, right
