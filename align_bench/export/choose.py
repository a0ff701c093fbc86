"""Which cell a name means, and whether it has weights to export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_bench.errors import MissingResultError, SuiteError, nearest
from align_bench.planning.graph import make_graph
from align_bench.report.export import read_report
from align_bench.report.labels import called, names_of
from align_bench.runner.outcomes import outcomes
from align_bench.runner.report import report_key
from align_bench.runner.results import Results
from align_bench.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.planning.cells import Cell
    from align_bench.planning.graph import Graph
    from align_bench.planning.inputs import Prepared
    from align_bench.report.schema import Report, Result
    from align_bench.stages.models import Frozen


@dataclass(frozen=True, slots=True)
class Chosen:
    """A finished cell of a suite that was run.

    Attributes:
        prepared: the suite.
        graph: what it asks for.
        results: what is stored of it.
        cell: the cell, which has trained an adapter.
        report: the suite's report.
    """

    prepared: Prepared
    graph: Graph
    results: Results
    cell: Cell
    report: Report

    @property
    def frozen(self) -> Frozen:
        """What its adapter stands on: the suite's base, or a model that training started from."""
        return self.cell.adapter.frozen if self.cell.adapter else self.prepared.inputs.frozen

    @property
    def result(self) -> Result:
        """What the report says of the cell."""
        return next(one for one in self.report.results if one.cell == self.cell.id)


def choose(prepared: Prepared, name: str, *, runs: Path, reports: Path) -> Chosen:
    """Find the cell of a suite that a name means, with all that its export needs.

    Args:
        prepared: the suite.
        name: as tables print it.
        runs: the folder of what has been computed.
        reports: the folder of reports.

    Raises:
        SuiteError: no cell, or several, have this name, or it has no weights.
        MissingResultError: it has not finished, or there is no report of it.
    """
    suite = prepared.suite.name
    store = Store(runs)
    store.check()
    results = Results(store, read_only=True)
    graph = make_graph(prepared, results)
    cell = find_cell(graph, name)
    _check_weights(cell, prepared)
    ended = outcomes(graph, results)[cell.id]
    if ended.status != "done":
        raise MissingResultError(
            f"{cell.id} of {suite} has not finished in {runs}: {ended.reason}",
            fix="align-bench run, with the same suite and --set, computes it",
        )
    rebuild = "align-bench report, with the same suite and --set, rebuilds it from what is stored"
    try:
        report = read_report(reports / suite)
    except MissingResultError as error:
        raise MissingResultError(
            f"{error.message}; the card's numbers come from the report of {suite}", fix=rebuild
        ) from None
    if report.suite.state != report_key(prepared, graph):
        raise MissingResultError(
            f"the report in {reports / suite} is of other settings, or was made by other code", fix=rebuild
        )
    return Chosen(prepared, graph, results, cell, report)


def find_cell(graph: Graph, name: str) -> Cell:
    """The cell that a name means, as tables print it: its own, its method's or its judge's, where that is one only.

    Raises:
        SuiteError: none or several have this name.
    """
    cells = {cell.id: cell for cell in graph.shown}
    found = [cells[one] for one in called(name, cells)]
    exact = [cell for cell in found if str(cell.id) == name]
    found = exact or found or [cell for judge in graph.panel if judge.name == name for cell in judge.members]
    if len(found) == 1:
        return found[0]
    trained = [one for one, cell in cells.items() if cell.adapter is not None]
    if found:
        raise SuiteError(
            f"{name} stands for {len(found)} cells: {', '.join(str(cell.id) for cell in found)}",
            fix=f"name one of them, such as '{found[0].id}'",
        )
    raise SuiteError(f"no cell {name!r} in this suite. {nearest(name, names_of(trained), what='cell')}")


def _check_weights(cell: Cell, prepared: Prepared) -> None:
    if cell.adapter is not None:
        return
    if cell.loaded is not None:
        raise SuiteError(f"{cell.id} was not trained here: it is {cell.loaded.base.name}", fix="use that model")
    if cell.plugin is None:
        raise SuiteError(
            f"{cell.id} was not trained: it is {prepared.inputs.frozen.base.name} as it was",
            fix="name a cell that was trained",
        )
    reward = f", {cell.reward.id}" if cell.reward else ""
    raise SuiteError(
        f"{cell.id} has no weights of its own: {cell.algorithm} picks among answers of "
        f"{cell.start.name if cell.start else 'the base'}",
        fix=f"export what it picks by{reward}" if reward else "name a cell that was trained",
    )
