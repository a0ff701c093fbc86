"""Two methods against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align_bench.errors import MissingResultError, nearest
from align_bench.records import CellId, Comparison, Level
from align_bench.report.decision import turned
from align_bench.report.formatting import one_line
from align_bench.report.labels import called, names_of, of_method
from align_bench.report.tables.section import Section, both, comparison_section, observed

if TYPE_CHECKING:
    from align_bench.report.schema import Report

LEVELS: tuple[Level, ...] = ("method", "checkpoint")


def members(report: Report, name: str) -> dict[Level, set[CellId]]:
    """Level → the ids under which comparisons hold a method or a single cell, which is no method.

    Args:
        report: a report.
        name: of a method, with or without the parameters that tell it from others, or of a cell; as tables print it.

    Raises:
        MissingResultError: no such method or cell in the report, or none of its cells finished.
    """
    cells = [found.cell for found in report.results]
    meant = called(name, cells)
    if not meant:
        raise MissingResultError(f"The report has no {name!r}. {nearest(name, names_of(cells), what='method')}")
    matching = [found for found in report.results if found.cell in meant]
    done = {found.cell for found in matching if found.status == "done"}
    if not done:
        reasons = "; ".join(f"{found.name} {found.status}: {found.reason}" for found in matching)
        raise MissingResultError(f"No cell of {name!r} finished: {reasons}")
    return {"checkpoint": done, "method": {cell.method for cell in done} if of_method(name, cells) else set()}


def compared(report: Report, a: str, b: str) -> list[Comparison]:
    """Every comparison between the cells of two methods, turned to `a − b`; those of methods first.

    Args:
        report: a report.
        a, b: names of methods or cells; the same name twice compares a method's own cells.

    Raises:
        MissingResultError: no such method or cell in the report, or none of its cells finished.
    """
    left, right = members(report, a), members(report, b)
    chosen: list[Comparison] = []
    for level in LEVELS:
        for found in report.comparisons:
            if found.level != level:
                continue
            if found.a in left[level] and found.b in right[level]:
                chosen.append(found)
            elif found.a in right[level] and found.b in left[level]:
                chosen.append(turned(found))
    return chosen


def pairwise(report: Report, a: str, b: str) -> Section:
    """`compared` as a table.

    Args, Raises: as `compared`.
    """
    chosen = compared(report, a, b)
    captions = [
        "Nothing to compare: reward models and policies are compared only among themselves, different methods only "
        "at one seed, judges not at all, and with `report.against` only the pairs that it allows."
    ]
    if chosen:
        captions = [f"A positive difference: {one_line(a)} is higher.", *observed(report, "pairs", "prompts")]
        if not any(found.level == "method" for found in chosen):
            captions.append(
                "These are tests of these checkpoints; a claim about the methods needs at least 3 seeds of each."
            )
    title = f"{one_line(a)} against {one_line(b)}"
    one_pair = len({(found.a, found.b) for found in chosen}) == 1  # the title says it
    return comparison_section(title, chosen, captions, chapter="differences", who=None if one_pair else ("a − b", both))
