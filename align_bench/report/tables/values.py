"""What stands in a table's cells: text, or numbers in full with the text that shows them.

`str(value)` is what every renderer shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from align_bench import records
from align_bench.report import formatting

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Number:
    """One number: a mean, a share, a p-value, a count, a time, a size.

    Attributes:
        value: in full, in base units (shares of 1, seconds, bytes); None where it is undefined.
        text: as it is shown.
    """

    value: float | None
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Spread:
    """An estimate with its 95% interval: `0.758 ±0.027`, `0.984 -0.012/+0.007` where that is lopsided."""

    estimate: records.Estimate

    def __str__(self) -> str:
        return formatting.with_spread(self.estimate)


@dataclass(frozen=True, slots=True)
class Interval:
    """The bounds of a difference: `[-0.012, +0.034]`."""

    low: float | None
    high: float | None

    def __str__(self) -> str:
        return formatting.interval(self.low, self.high)


Value: TypeAlias = str | Number | Spread | Interval


def shown(value: N | None, render: Callable[[N | None], str]) -> Number:
    """A number as one of the functions of `formatting` shows it."""
    return Number(value, render(value))


def number(value: float | None) -> Number:
    """A number to three decimals."""
    return shown(value, formatting.number)


def difference(value: float | None) -> Number:
    """A number with its sign."""
    return shown(value, formatting.signed)


def p_value(value: float | None) -> Number:
    """A p-value."""
    return shown(value, formatting.p_value)


def count(value: int | None) -> Number:
    """A whole number, without separators."""
    return Number(value, formatting.UNDEFINED if value is None else str(value))


def point(estimate: records.Estimate) -> Number:
    """An estimate without its interval."""
    return number(estimate.value)


def tenths(estimate: records.Estimate) -> Number:
    """The same to one decimal."""
    return shown(estimate.value, formatting.tenths)


def percent(estimate: records.Estimate) -> Number:
    """The same as a percentage."""
    return shown(estimate.value, formatting.percent)
