"""Which rows a metric may use."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Numbers = Sequence[float | None] | npt.NDArray[np.floating] | npt.NDArray[np.integer]
Column = npt.NDArray[np.float64]


def finite(*columns: Numbers) -> tuple[Column, ...]:
    """The rows in which every column holds a finite number, column by column.

    A missing (None) or non-finite number says nothing about which answer is better, so its row is left out of every
    metric; the metric's `n` tells how many rows are left.

    Args:
        columns: columns of one length.

    Raises:
        ValueError: the columns differ in length.
    """
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"columns of different lengths: {[len(column) for column in columns]}")
    table = np.array([np.asarray(column, dtype=np.float64) for column in columns])
    kept = np.isfinite(table).all(axis=0)
    return tuple(row[kept] for row in table)


def is_constant(values: Column) -> bool:
    """Whether the values differ by rounding at most, so that no variance can be estimated."""
    return bool(np.ptp(values) <= 1e-12 * np.max(np.abs(values)))


def tied(values: Column) -> Column:
    """Values, × a constant, of which those that differ by rounding at most are equal, for tests that rank them."""
    scale = np.max(np.abs(values), initial=0.0)
    rounded: Column = np.round(values / scale, 12) if scale > 0 else values
    return rounded


def is_finite(number: float | None) -> bool:
    """Whether there is a number, and it is finite."""
    return number is not None and math.isfinite(number)
