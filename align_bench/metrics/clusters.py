"""Pairs that share a prompt are no independent observations: their prompt is a cluster."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from align_bench.metrics.finite import Column, Numbers, finite
from align_bench.metrics.mean import mean, wanted
from align_bench.records import Estimate

Clusters = Sequence[Hashable]
Codes = npt.NDArray[np.intp]


def cluster_codes(clusters: Clusters | None, n: int) -> Codes:
    """Clusters as numbers from 0, in order of first appearance, shape [n]; each its own where None.

    Raises:
        ValueError: not one cluster a value.
    """
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise ValueError(f"{n} values, but {len(clusters)} clusters")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.intp)


def is_clustered(codes: Codes | Column) -> bool:
    """Whether any cluster has more than one value."""
    return len(np.unique(codes)) < len(codes)


def are_alike(values: Column, codes: Codes | Column) -> bool:
    """Whether the clusters' means differ by rounding at most, as one cluster's do: no error can be estimated then."""
    places = np.unique(codes, return_inverse=True)[1]
    means = np.bincount(places, values) / np.bincount(places)
    return bool(np.ptp(means) <= 1e-12 * np.max(np.abs(values)))


def clustered_fit(values: Column, codes: Codes | Column) -> Any:
    """statsmodels' fit of a constant to the values, its standard error clustered.

    With its small-sample correction, and G − 1 degrees of freedom for G clusters.
    """
    from statsmodels.regression.linear_model import OLS

    return OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)


def clustered_mean(values: Column, codes: Codes | Column) -> Estimate:
    """Mean of all values with its 95% interval by the clustered standard error; `n` counts values.

    No interval for one cluster, or for clusters whose means are all the same.
    """
    n = len(values)
    if n == 0:
        return Estimate(None)
    centre = float(np.mean(values))
    if are_alike(values, codes):
        return Estimate(centre, n=n)
    low, high = clustered_fit(values, codes).conf_int(0.05)[0]
    influences = np.bincount(np.unique(codes, return_inverse=True)[1], values - centre).astype(np.float64)
    return Estimate(centre, float(low), float(high), n, wanted(influences, n))


def pair_mean(values: Numbers, prompts: Clusters | None = None) -> Estimate:
    """Mean over pairs, which weigh the same, with Student's 95% interval, clustered over prompts; `n` counts pairs.

    It is not `mean` with clusters, which averages the samples of a prompt first, so that prompts weigh the same.

    Args:
        values: one a pair, or several of a pair that share its prompt; None and non-finite ones are left out.
        prompts: the prompt of each value; None when each has its own.
    """
    known, codes = finite(values, cluster_codes(prompts, len(values)))
    return clustered_mean(known, codes) if is_clustered(codes) else mean(known)
