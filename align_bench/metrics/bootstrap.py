"""The interval of a statistic that has none in closed form."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from align_bench.metrics.finite import Column

RESAMPLES = 999


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
