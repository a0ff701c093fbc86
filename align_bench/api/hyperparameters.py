"""Hyper-parameters: their types, bounds and ranges, and how a suite's values are parsed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeAlias

import annotated_types
from pydantic import AllowInfNan, Strict, TypeAdapter, ValidationError

from align_bench.api.declaring import MOST_LETTERS, MOST_WHOLE, declared_record, in_short, is_number
from align_bench.errors import PluginError

Value: TypeAlias = bool | int | float | str


@declared_record
@dataclass(frozen=True, slots=True)
class Range:
    """The values that a hyper-parameter's source recommends or tunes over, both ends included.

    Stands in a signature (`beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1`). Unlike a bound it may be left: the
    run then warns. A suite's `tune` searches it.

    Attributes:
        low, high: its ends, finite, in the parameter's unit.

    Raises:
        PluginError: when they are no two finite numbers in ascending order.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (is_number(self.low) and is_number(self.high) and self.low < self.high):
            given = f"Range({in_short(self.low)}, {in_short(self.high)})"
            raise PluginError(f"{given}: expected two finite numbers, the lower one first")

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g}–{self.high:g}"

    def at(self, share: float) -> float:
        """The value at a share (0 to 1) of the way from `low` to `high`, to three significant digits.

        The way is logarithmic where the range spans a factor of ten or more above 0, else linear.
        """
        if self.low > 0 and self.high / self.low >= 10:
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + (self.high - self.low) * share
        return min(max(float(f"{value:.3g}"), self.low), self.high)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A hyper-parameter, read from the plugin's signature.

    Attributes:
        name: keyword in the signature.
        type: `float`, `int`, `bool` or `str`.
        default: value when the suite says nothing.
        bounds: such as `> 0`, `≥ 0, < 0.5` or `one of a, b`, in words; empty when unbounded.
        constraints: the `annotated_types` bounds themselves.
        description: what the docstring's `Args` says of it, in one line.
        range: values that its source recommends or tunes over; None when none are known.
        choices: the texts that it may be, of a `Literal`; empty when any may stand.
    """

    name: str
    type: type[Value]
    default: Value
    bounds: str
    constraints: tuple[annotated_types.BaseMetadata, ...]
    description: str
    range: Range | None = None
    choices: tuple[str, ...] = ()

    def parse(self, value: object) -> Value:
        """`value` as this parameter's type, checked against its bounds; a whole number may stand for a float.

        Raises:
            ValueError: with what was found and what was expected.
        """
        if isinstance(value, int) and abs(value) > MOST_WHOLE and self.type in (int, float):
            raise ValueError(f"{self.name}: got a number of {value.bit_length()} bits, expected at most 63")
        if isinstance(value, str) and len(value) > MOST_LETTERS:
            raise ValueError(f"{self.name}: got {len(value):,} characters, expected at most {MOST_LETTERS:,}")
        kind: Any = self.type  # mypy takes classes for unhashable
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name}: got {value!r}, expected {self.bounds}")
        try:
            return _adapter(kind, self.constraints).validate_python(value)
        except ValidationError as error:
            expected = f"{self.type.__name__}{f' {self.bounds}' if self.bounds else ''}"
            if error.errors()[0]["type"] == "finite_number":
                expected = "a finite number"
            raise ValueError(f"{self.name}: got {in_short(value)}, expected {expected}") from None


@cache
def _adapter(kind: Any, constraints: tuple[annotated_types.BaseMetadata, ...]) -> TypeAdapter[Value]:
    strict = (Strict(), AllowInfNan(False)) if kind is float else (Strict(),)
    hint: Any = Annotated[kind, *strict, *constraints]
    return TypeAdapter(hint)
