"""Alarms as a run goes: said as soon as what they rest on is stored. The report looks again, with all of it at hand."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, cast

from align_bench.errors import MissingResultError
from align_bench.report.alarms import (
    base_alarms,
    cut_off,
    data_alarms,
    instead_of_train,
    judge_alarms,
    policy_alarms,
    reward_alarms,
)
from align_bench.report.baseline import against_longer
from align_bench.report.cells import gather
from align_bench.report.results import result
from align_bench.report.schema import BaseFacts
from align_bench.report.verdict import alarm_lines
from align_bench.runner.outcomes import outcome
from align_bench.runner.report import data_facts
from align_bench.runner.rows import Rows
from align_bench.stages.audit import Audit
from align_bench.stages.scores import Scores

if TYPE_CHECKING:
    from align_bench.planning.cells import Cell
    from align_bench.planning.graph import Graph
    from align_bench.planning.inputs import Prepared
    from align_bench.report.cells import Cell as ReportedCell
    from align_bench.report.schema import Alarm, Result
    from align_bench.runner.progress import Progress
    from align_bench.runner.results import Results
    from align_bench.stages.stage import Stage


class Watch:
    """Looks at each split and each cell once, when the last stage that its alarms rest on has been made.

    A cell that was stored before is not looked at: the run that made it said what it found, and the report looks again.
    """

    def __init__(self, prepared: Prepared, graph: Graph, results: Results, progress: Progress) -> None:
        self._prepared = prepared
        self._graph = graph
        self._results = results
        self._progress = progress
        self._rows = Rows(prepared, graph, results)
        self._waiting: list[tuple[set[Stage[object]], str, Callable[[], Iterable[Alarm]]]] = []
        for split, table in graph.tables.items():
            self._wait(f"the rows of {split}", {table, graph.tables["train"]}, partial(self._data, split))
        base = _rests_on(graph.base)
        for cell in (graph.base, *graph.judges, *graph.cells):
            if cell.waiting is None:
                needed = _rests_on(cell) | (base if cell.kind != "reward" else set())
                self._wait(str(cell.id), needed, partial(self._cell, cell))

    def stored_rows(self) -> None:
        """Look at the splits that are stored already: another suite may have made them, and beside other ones."""
        for split, table in self._graph.tables.items():
            if all(self._results.has(one) for one in (table, self._graph.tables["train"])):
                self._look(f"the rows of {split}", partial(self._data, split))

    def _wait(self, what: str, needed: set[Stage[object]], look: Callable[[], Iterable[Alarm]]) -> None:
        if missing := {stage for stage in needed if self._results.facts(stage) is None}:
            self._waiting.append((missing, what, look))

    def made(self, stage: Stage[object]) -> None:
        """A stage has been made."""
        for missing, _, _ in self._waiting:
            missing.discard(stage)
        ready = [(what, look) for missing, what, look in self._waiting if not missing]
        self._waiting = [one for one in self._waiting if one[0]]
        for what, look in ready:
            self._look(what, look)

    def _look(self, what: str, look: Callable[[], Iterable[Alarm]]) -> None:
        try:
            lines = alarm_lines(look())
        except MissingResultError:  # damaged meanwhile: it is made again
            raise
        except Exception as error:  # a run of hours does not end for a line of its log
            last = traceback.format_exception_only(error)[-1].strip()
            lines = [f"no alarms could be looked for in {what}: {last}"]
        for line in lines:
            self._progress.log(line)

    def _data(self, split: str) -> Iterable[Alarm]:
        facts = data_facts(split, self._prepared, self._graph, self._results)
        return data_alarms(split, facts, instead_of_train(self._prepared.suite.model_dump(mode="json"), split))

    def _cell(self, cell: Cell) -> Sequence[Alarm]:
        if cell.kind == "base":
            base = self._prepared.inputs.frozen.base
            facts = BaseFacts(name=base.name, digest=base.digest, precision="", vocabulary=base.vocabulary)
            answered = any(other.kind == "policy" for other in self._graph.cells)
            return [*base_alarms(facts, self._base), *(cut_off(self._base) if answered else ())]
        own = self._reported(cell)
        found = result(own, None, ())
        if cell.kind == "reward":
            beside = against_longer([own], ())
            return [*(alarm for one in beside for alarm in judge_alarms(one)), *reward_alarms(found)]
        return [*policy_alarms(found, self._base), *cut_off(found)]

    @cached_property
    def _base(self) -> Result:
        return result(self._reported(self._graph.base), None, ())

    def _reported(self, cell: Cell) -> ReportedCell:
        """A cell with its rows, as far as they are made: without scores by judges."""
        adapter = None if cell.adapter is None else self._results.artefact(cell.adapter).facts
        trainable = None if adapter is None else cast("int | None", adapter.get("trainable"))
        ended = replace(outcome(cell, self._results), status="done", trainable=trainable)
        (found,) = gather([ended], self._rows.scores(cell), self._rows.generations(cell, ()))
        return found


def _rests_on(cell: Cell) -> set[Stage[object]]:
    """What its alarms rest on: all but scores of its answers, and audits."""
    return {stage for stage in cell.stages if not isinstance(stage, Scores | Audit)}
