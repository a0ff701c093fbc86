"""Paired bootstrap of a statistic that is no mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from align_bench.metrics.bootstrap import percentile_interval
from align_bench.metrics.finite import Column
from align_bench.stats.paired import Difference


def paired_bootstrap(
    statistic: Callable[..., Any], a: Sequence[Column], b: Sequence[Column], shared: Sequence[Column]
) -> Difference:
    """`statistic(*a, *shared) − statistic(*b, *shared)` with its percentile interval over resampled rows (scipy).

    It is an interval and no test: p and effect stay None.

    Args:
        statistic: of columns of one length, along a keyword `axis`.
        a, b: each model's own columns, row by row of the same units.
        shared: columns that both have in common.
    """
    n = len(a[0])

    def difference(*columns: Column, axis: int = -1) -> Any:
        left, right, common = columns[: len(a)], columns[len(a) : len(a) + len(b)], columns[len(a) + len(b) :]
        return statistic(*left, *common, axis=axis) - statistic(*right, *common, axis=axis)

    samples = (*a, *b, *shared)
    value = float(difference(*samples)) if n > 1 else np.nan
    if not np.isfinite(value):
        return Difference(None, None, None, None, None, n)
    return Difference(value, *percentile_interval(samples, difference), None, None, n)
