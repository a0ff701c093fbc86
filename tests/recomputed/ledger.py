"""Numbers by their place in `report.json`, and how far the one there may be from the one found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.recomputed.arithmetic import Found

Path = tuple[str | int, ...]
Leaf = str | int | float | bool | None
RELATIVE, ABSOLUTE = 1e-6, 1e-9  # of closed forms


@dataclass(frozen=True)
class Number:
    """What is found for a place in `report.json`.

    Attributes:
        value: the number; a text or a flag must be equal.
        least, most: where a number may be.
    """

    value: Leaf
    least: float = 0.0
    most: float = 0.0

    def agrees(self, there: Leaf) -> bool:
        """Whether this is what stands there."""
        if isinstance(self.value, bool | str | None) or isinstance(there, bool | str | None):
            return self.value == there
        return self.least <= there <= self.most


@dataclass
class Ledger:
    """Everything that is found, by its path."""

    numbers: dict[Path, Number] = field(default_factory=dict)

    def add(
        self, path: Path, value: Leaf, within: tuple[float, float] | None = None, absolute: float = ABSOLUTE
    ) -> None:
        """Enter a number; closed forms are to 1e-6 of it, counts are exact."""
        if path in self.numbers:
            raise ValueError(f"{path} is found twice")
        if value is None or isinstance(value, str | bool):
            self.numbers[path] = Number(value)
            return
        if not math.isfinite(value):
            self.numbers[path] = Number(None)
            return
        if within is None:
            tolerance = 0.0 if isinstance(value, int) else RELATIVE * abs(value) + absolute
            within = value - tolerance, value + tolerance
        self.numbers[path] = Number(value, *within)

    def p(self, path: Path, value: float | None) -> None:
        """Enter a p-value, however small."""
        self.add(path, value, absolute=0.0)

    def estimate(self, path: Path, found: Found) -> None:
        """Enter a number with its interval; bounds that were drawn may be off by what another seed makes of them."""
        drawn = found.drawn
        ranges = None, None if drawn is None else drawn.low_range, None if drawn is None else drawn.high_range
        for name, value, within in zip(
            ("value", "low", "high"), (found.value, found.low, found.high), ranges, strict=True
        ):
            if value is not None and within is None:
                tolerance = found.relative * abs(value) + ABSOLUTE
                self.add((*path, name), value, (value - tolerance, value + tolerance))
            else:
                self.add((*path, name), value, within)
        self.record(path, {"n": found.n, "wanted": found.wanted})

    def record(self, path: Path, values: Mapping[str, Leaf]) -> None:
        """Enter each value of a record."""
        for name, value in values.items():
            self.add((*path, name), value)


def leaves(block: Any, path: Path = ()) -> dict[Path, Leaf]:
    """Every number, text and flag of a JSON document by its path; an empty list or object is a leaf of its own."""
    found: dict[Path, Leaf] = {}
    if isinstance(block, Mapping):
        for name, value in block.items():
            found |= leaves(value, (*path, name))
    elif isinstance(block, Sequence) and not isinstance(block, str):
        for place, value in enumerate(block):
            found |= leaves(value, (*path, place))
    else:
        found[path] = block
    return found


def shown(path: Path) -> str:
    """`results[3].metrics.accuracy.low`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def pattern(path: Path) -> str:
    """`results[].metrics.accuracy.low`."""
    return "".join("[]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
