"""The interval of a statistic that has none in closed form."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from align_bench.metrics.finite import Column

RESAMPLES = 999
CLUSTER_RESAMPLES = 399


def percentile_interval(samples: Sequence[Column], statistic: Callable[..., Any]) -> tuple[float | None, float | None]:
    """95% percentile bootstrap over whole rows (scipy; 999 resamples, generator seeded with 0).

    Args:
        samples: columns of one length, at least two rows.
        statistic: of the columns, along a keyword `axis`.

    Returns:
        The bounds; None where the statistic is undefined in so many resamples that the bounds are.
    """
    import numpy as np
    from scipy.stats import DegenerateDataWarning, bootstrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        drawn = bootstrap(
            tuple(samples),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
    low, high = float(drawn.low), float(drawn.high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)


def cluster_interval(
    statistic: Callable[..., Any], columns: Sequence[Column], clusters: Sequence[Hashable]
) -> tuple[Any, Any]:
    """95% percentile bootstrap over clusters, such as prompts (399 resamples, generator seeded with 0).

    Where rows of one prompt are alike, resampling rows would take them for independent.

    Args:
        statistic: of the columns; a number, or an array of numbers.
        columns: columns of one length.
        clusters: the cluster of each row.

    Returns:
        The bounds, in the statistic's shape; None where there are fewer than two clusters. Of an array, a bound is None
        where more than one resample in twenty leaves its statistic undefined.
    """
    import numpy as np

    members: dict[Hashable, list[int]] = {}
    for row, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(row)
    if len(members) < 2:
        return None, None
    groups = [np.array(own) for own in members.values()]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(CLUSTER_RESAMPLES):
        rows = np.concatenate([groups[place] for place in rng.integers(0, len(groups), len(groups))])
        drawn.append(statistic(*(column[rows] for column in columns)))
    found = np.array(drawn, dtype=np.float64)
    usable = np.isfinite(found).mean(axis=0) >= 0.95
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without any finite value
        bounds = np.nanpercentile(np.where(np.isfinite(found), found, np.nan), [2.5, 97.5], axis=0)
    low, high = (np.where(usable, bound, np.nan) for bound in bounds)
    if found.ndim == 1:
        return (float(low), float(high)) if usable else (None, None)
    lower, upper = ([float(value) if math.isfinite(value) else None for value in bound] for bound in (low, high))
    return lower, upper
