"""How each cell of a graph ended, from what the store holds of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from align_bench.records import Outcome, Status
from align_bench.runner.costs import total
from align_bench.stages.stage import closure_of

if TYPE_CHECKING:
    from align_bench.planning.cells import Cell
    from align_bench.planning.graph import Graph
    from align_bench.records import CellId
    from align_bench.runner.results import Results
    from align_bench.stages.stage import Stage
    from align_bench.store.failures import Failure

FAILED_CHECKS = "failed_checks"  # among the facts of an adapter: what its method failed before its first step


def outcomes(graph: Graph, results: Results) -> dict[CellId, Outcome]:
    """Cell → how it ended, in the order of the report.

    A cell is done when all its stages are stored, but for those that it is whole without: an audit, and the scores by a
    judge that has not ended well itself.
    """
    judges = {cell.id: outcome(cell, results) for cell in graph.judges}
    for cell in (graph.base, *graph.cells):
        for stage in cell.stages:
            if stage.blamed_cell in judges and not results.has(stage) and (failure := results.failure(stage)):
                judges[stage.blamed_cell] = replace(
                    judges[stage.blamed_cell], status="failed", reason=failure.reason, cost=None
                )
    broken = {cell for cell, found in judges.items() if found.status != "done"}
    found = {cell.id: outcome(cell, results, broken) for cell in (graph.base, *graph.cells)}
    return {cell.id: {**judges, **found}[cell.id] for cell in graph.shown}


def outcome(cell: Cell, results: Results, broken: Collection[CellId] = ()) -> Outcome:
    """How a cell ended.

    Args:
        cell: the cell.
        results: what is stored.
        broken: judges without whose scores it is whole.
    """
    made = Outcome(
        cell.id,
        cell.algorithm,
        cell.kind,
        cell.all_parameters,
        cell.seed,
        "done",
        reward=cell.reward_definition,
        warnings=cell.warnings,
        remarks=cell.remarks,
        start=cell.start.cell.id if cell.start and cell.start.cell else None,
        chain=cell.chain if cell.start else (),
    )
    if cell.waiting is not None:
        return replace(made, status="skipped", reason=cell.waiting)
    missing = [
        stage
        for stage in cell.stages
        if not stage.optional and stage.blamed_cell not in broken and not results.has(stage)
    ]
    if missing:
        reasons = [_why(stage, results) for stage in missing]  # a stage that was not tried says nothing of why
        status, reason = next((found for found in reasons if found[0] == "failed"), reasons[0])
        return replace(made, status=status, reason=reason)
    costs = [results.artefact(stage).cost for stage in cell.stages if stage.counted_in_cost and results.has(stage)]
    if cell.adapter is None:
        return replace(made, cost=total(costs), trainable=0)
    trained = results.artefact(cell.adapter)
    folder = trained.folder.relative_to(results.store.folder).as_posix()
    return replace(
        made, cost=total(costs), trainable=cast("int | None", trained.facts.get("trainable")), adapter=folder
    )


def _why(stage: Stage[object], results: Results) -> tuple[Status, str]:
    """Why a stage has no result: it failed, what it needs did, or it was not asked for."""
    for needed in reversed(closure_of([stage], done=results.has)):
        if failure := _failure(needed, results):
            where = "" if needed.owner == stage.owner else f"{failure.what} failed: "
            return "failed", where + failure.reason
    return "skipped", f"{stage.label}: not stored"


def _failure(stage: Stage[object], results: Results) -> Failure | None:
    return results.store.failures.get(stage.address)
