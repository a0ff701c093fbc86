"""A column of numbers in a few: how many, where their middle is, how far they spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from align_bench.metrics.finite import Numbers, finite


@dataclass(frozen=True, slots=True)
class Distribution:
    """Summary of a column. Undefined is None, never 0.

    Attributes:
        n: rows.
        n_valid: those that hold a finite number; the others are left out of the rest.
        mean: their mean.
        std: their unbiased standard deviation; None for fewer than two.
        q1, median, q3: their quartiles, linear between neighbours (numpy's default, type 7 of Hyndman and Fan 1996).
    """

    n: int
    n_valid: int
    mean: float | None
    std: float | None
    q1: float | None
    median: float | None
    q3: float | None


def describe(values: Numbers) -> Distribution:
    """The distribution of a column in which None stands for a missing number."""
    (kept,) = finite(values)
    if not len(kept):
        return Distribution(len(values), 0, None, None, None, None, None)
    q1, median, q3 = (float(bound) for bound in np.quantile(kept, [0.25, 0.5, 0.75]))
    std = float(np.std(kept, ddof=1)) if len(kept) > 1 else None
    return Distribution(len(values), len(kept), float(np.mean(kept)), std, q1, median, q3)
