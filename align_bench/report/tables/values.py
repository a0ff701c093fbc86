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
    """An estimate with its 95% interval: `0.758 ±0.027`, `0.984 -0.012/+0.007` where that is lopsided.

    Attributes:
        estimate: what is shown.
        even: whether one that is lopsided is shown with the larger distance alone, as `0.984 ±0.012`.
        decimals: of both.
    """

    estimate: records.Estimate
    even: bool = False
    decimals: int = 3

    def __str__(self) -> str:
        found = self.estimate
        if not self.even:
            return formatting.with_spread(found)
        if found.value is None or found.low is None or found.high is None:
            return formatting.plus_minus(found.value, None, self.decimals)
        return formatting.plus_minus(found.value, max(found.value - found.low, found.high - found.value), self.decimals)


@dataclass(frozen=True, slots=True)
class OfSeeds:
    """A mean over seeds with its standard deviation over these: `0.758 ±0.027`, `0.758` without one.

    Attributes:
        mean, sd: both.
        decimals: with which they are shown.
    """

    mean: float | None
    sd: float | None
    decimals: int = 3

    def __str__(self) -> str:
        return formatting.plus_minus(self.mean, self.sd, self.decimals)


@dataclass(frozen=True, slots=True)
class Interval:
    """The bounds of a difference: `[-0.012, +0.034]`."""

    low: float | None
    high: float | None

    def __str__(self) -> str:
        return formatting.interval(self.low, self.high)


Value: TypeAlias = str | Number | Spread | OfSeeds | Interval


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
