"""What a report was made from, as lines of a name and a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from align_bench.data.counts import describe_counts

if TYPE_CHECKING:
    from align_bench.records import Json
    from align_bench.report.schema import Report

Line = tuple[str, str]


def inputs(report: Report) -> list[Line]:
    """The base, what became of the rows of each data set, and the judges."""
    lines = list(_lines("base", report.base.model_dump()))
    lines += [(f"data.{split}", describe_counts(facts.model_dump()) or "") for split, facts in report.data.items()]
    for judge in report.judges:
        facts = judge.model_dump(exclude={"name"})
        facts |= {"cells": [str(cell) for cell in judge.cells], "rewarded": [str(cell) for cell in judge.rewarded]}
        lines += _lines(f"judge {judge.name}", facts)
    return lines


def environment(report: Report) -> list[Line]:
    """The machine and the libraries."""
    return list(_lines("environment", report.environment.model_dump()))


def _lines(name: str, value: Json) -> Iterator[Line]:
    """A block as a flat list: `base.digest`, `5c61…`. What is not known, and what is empty, is left out."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _lines(f"{name}.{key}", item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        if value:
            yield name, ", ".join(map(str, value))
    elif value is not None and value != "":
        yield name, str(value)
