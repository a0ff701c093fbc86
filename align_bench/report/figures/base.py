"""What figures are made of, and what they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from align_bench.metrics.finite import Column, is_finite
from align_bench.records import CellId
from align_bench.report.cells import Cell
from align_bench.report.files import unicode
from align_bench.report.formatting import number, one_line
from align_bench.report.labels import short_names
from align_bench.report.plots import Look, looks
from align_bench.report.plots.canvas import Numbers
from align_bench.report.rows import TrainingRow
from align_bench.report.schema import Report
from align_bench.suite.names import BASE_CELL

MAX_PANELS = 12
CORRECT, WRONG = Look("#0072b2"), Look("#d55e00", "--")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the report.

    Attributes:
        name: file name without its ending, and id in the page.
        chapter: where in the page it stands.
        title: what it shows, in a few words.
        caption: what is drawn, of how many observations, and which test stands behind it.
        alternative: what a reader who cannot see it should know.
        columns, rows: the drawn numbers.
        svg: the drawing, in the page's colours.
    """

    name: str
    chapter: str
    title: str
    caption: str
    alternative: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | int | None]]
    svg: str


@dataclass(frozen=True)
class Material:
    """All that figures are made from.

    Attributes:
        report: the report.
        cells: every cell with its rows.
        training: rows of `training.parquet`.
    """

    report: Report
    cells: Sequence[Cell]
    training: Sequence[TrainingRow]

    @cached_property
    def done(self) -> list[Cell]:
        """Cells with a result."""
        return [cell for cell in self.cells if cell.outcome.status == "done"]

    @cached_property
    def shown(self) -> list[Cell]:
        """Of each method the cell of its first seed: what is drawn panel by panel."""
        first: dict[CellId, Cell] = {}
        for cell in self.done:
            first.setdefault(cell.id.method, cell)
        return list(first.values())

    @cached_property
    def rewards(self) -> list[Cell]:
        """The shown reward models."""
        return [cell for cell in self.shown if cell.outcome.kind == "reward" and cell.scores]

    @cached_property
    def answering(self) -> list[Cell]:
        """The base, if it is there, and the shown policies that answered prompts."""
        answering = [cell for cell in self.shown if cell.generations]
        return sorted(answering, key=lambda cell: cell.outcome.kind != "base")

    @cached_property
    def _labels(self) -> dict[str, str]:
        named = short_names(one.cell for one in self.report.results)
        return {str(cell): label for cell, label in named.items()}

    def label(self, cell: CellId | str) -> str:
        """The short name of a cell or method, or of one that is called so; judges keep their own."""
        return self._labels.get(str(cell), str(cell))

    def training_of(self, cell: Cell) -> list[TrainingRow]:
        """The steps of a cell's training."""
        return self._training_by_cell.get(cell.name, [])

    def losses_of(self, name: str) -> list[tuple[int, float | None]]:
        """Step and loss of the training of a cell, or of a trial, by its name."""
        return [(row.step, row.loss) for row in self._training_by_cell.get(unicode(name), [])]

    @cached_property
    def _training_by_cell(self) -> dict[str, list[TrainingRow]]:
        rows: dict[str, list[TrainingRow]] = {}
        for row in self.training:
            rows.setdefault(unicode(row.cell), []).append(row)  # as a report calls it
        return rows

    @cached_property
    def looks(self) -> dict[CellId, Look]:
        """One look for each method, in every figure."""
        methods, base = list(dict.fromkeys(cell.id.method for cell in self.done)), CellId(BASE_CELL)
        return looks(methods, plain=base if base in methods else None)

    def look(self, cell: CellId) -> Look:
        """The look of a cell, which is that of its method."""
        return self.looks[cell.method]

    @property
    def judge(self) -> str | None:
        """The main judge's name: the one who decides who wins in the tables."""
        return self.report.policies.judge

    @property
    def seeds(self) -> str:
        """A remark on what is left out, where methods have several seeds."""
        return " Of each method, the first seed is drawn." if len(self.shown) < len(self.done) else ""


def finite_of(values: Sequence[float | None]) -> Column:
    """The numbers among the values that are there and finite."""
    return np.array([value for value in values if is_finite(value)], float)


def ends(curves_by_name: Iterable[tuple[str, Numbers]], first: str = "first", last: str = "last") -> str:
    """Every curve's first and last value, in words."""
    parts = [
        f"{one_line(name)} {number(float(y[0]))} {first}, {number(float(y[-1]))} {last}"
        for name, y in curves_by_name
        if len(y)
    ]
    return "; ".join(parts) + "."


def span(numbers: Sequence[int]) -> str:
    """The smallest and largest of sorted numbers, or the one that all are."""
    return str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"
