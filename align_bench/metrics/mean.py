"""Means with their 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from align_bench.metrics.finite import Column, Numbers, finite, is_constant
from align_bench.records import Estimate

# A mean's interval wants 25 times the squared skewness in observations (Cochran 1977, Sampling Techniques, 2.15).
COCHRAN = 25
_ENDS = ((1 - 0.95) / 2, (1 + 0.95) / 2)  # of a 95% interval, rounded as scipy's `interval` rounds them


def mean(values: Numbers, clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Mean with Student's 95% interval.

    Where values are very skewed it covers less than that, and says so (`Estimate.wanted`): in simulations 91% of 100
    lognormal values, 94.5% of 500. What was tried instead covers no better than 93%, and less where Student's covers:
    BCa 92%, Johnson's t 91%, Hall's 93%, the studentised bootstrap 93%.

    Values of one cluster (the samples of one prompt) are no independent observations: they are averaged first, and `n`
    counts clusters. The value is undefined without any finite number, the interval for fewer than two clusters or
    equal ones.

    Args:
        values: numbers; None and non-finite ones are left out.
        clusters: the cluster of each value; None when every value is its own.
    """
    if clusters is None:
        return _interval(finite(values)[0])
    return _interval(np.array(list(cluster_means(values, clusters).values()), dtype=np.float64))


def wanted(influences: Column, n: int, factor: float = COCHRAN) -> int | None:
    """The n that an interval wants, by Cochran's rule of factor × skewness² prompts, where it is less than that.

    Args:
        influences: how far each prompt, or each group of them, moves the value; a prompt is an independent observation.
        n: observations, of which a prompt may have several.
        factor: 25 for a mean.
    """
    gaps = influences - influences.mean()
    spread = math.sqrt(np.mean(gaps**2))
    skewness = float(np.mean((gaps / spread) ** 3)) if spread > 0 else 0.0
    wants = factor * skewness**2 * n / len(influences)
    return math.ceil(wants) if wants > n else None


def cluster_means(values: Numbers, clusters: Sequence[Hashable]) -> dict[Hashable, float]:
    """Cluster → mean of its finite values, in order of first appearance; clusters without any are absent."""
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values, but {len(clusters)} clusters")
    members: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        if value is not None and math.isfinite(value):
            members.setdefault(cluster, []).append(float(value))
    return {cluster: sum(own) / len(own) for cluster, own in members.items()}


def _interval(values: Column) -> Estimate:
    n = len(values)
    if n == 0:
        return Estimate(None)
    centre = float(np.mean(values))
    if is_constant(values):  # as one value is
        return Estimate(centre, n=n)
    from scipy.special import stdtrit

    error = np.std(values, ddof=1) / n**0.5
    if not error > 0:  # values so small that their squares are 0, or so large that these are infinite
        return Estimate(centre, n=n)
    low, high = stdtrit(n - 1, _ENDS) * error + centre
    return Estimate(centre, float(low), float(high), n, wanted(values, n))
