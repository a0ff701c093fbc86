"""What `align-bench plan --hardware` shows: tokens, operations, memory and time per cell, and of the whole suite."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from align_bench.cli.plan_settings import lengths_of, one_process_words
from align_bench.cli.plan_view import MOST_ROWS, measured_rates, of_suite, roughly, without_weights
from align_bench.errors import SuiteError
from align_bench.models.base import base_parameters
from align_bench.planning.estimate import Estimate
from align_bench.planning.fit import Shapes, proposal, roomy
from align_bench.planning.forecast import Forecast
from align_bench.planning.graph import make_graph
from align_bench.planning.memory import ROOM
from align_bench.planning.sharing import shared_trainings
from align_bench.report.formatting import counted
from align_bench.runner.results import Glance
from align_bench.stages.answers import FILE, expected
from align_bench.stages.generate import Generate
from align_bench.store.store import Store

if TYPE_CHECKING:
    from rich.console import RenderableType

    from align_bench.planning.forecast import Work
    from align_bench.planning.hardware import Device, Hardware
    from align_bench.planning.inputs import Prepared
    from align_bench.stages.stage import Size, Stage
    from align_bench.store.keys import Address

ANSWERS = Generate.kind
MOST_NAMED = 5  # cells that a message names


def forecast(prepared: Prepared, runs: Path, hardware: Hardware, share: float | None = None) -> Forecast:
    """What a suite takes on some hardware.

    Args:
        prepared: the suite, with its precision as the hardware has it.
        runs: the folder of what has been computed, for measured rates and sizes of tables; it may be missing.
        hardware: what it would run on.
        share: of the peak, in place of the one that is assumed by default.

    Raises:
        AlignBenchError: for a folder of another version.
    """
    store = Store(runs)
    store.check()
    results = Glance(store)
    graph = make_graph(prepared, results)
    lengths = lengths_of(prepared, graph)
    sizes: dict[Stage[object], Size] = {graph.tables[split]: found.size for split, found in lengths.items()}
    device, frozen = hardware.device, prepared.inputs.frozen
    rates = measured_rates(prepared, graph, results, device.is_named)
    if (answers := _answers_per_second(store, of_suite(prepared, graph, results), device)) is not None:
        rates[ANSWERS] = answers * expected(lengths["val"].size, 1, 1, prepared.suite.generate.max_new_tokens)
    parameters = base_parameters(frozen.base)
    kind, precision = frozen.precision.device, frozen.precision
    estimate = Estimate(results, parameters, rates, lambda: device.peak(precision), kind, sizes)
    shapes = Shapes(prepared, parameters, estimate.size, lengths["val"].prompt[1], device.precision)
    return Forecast(graph, estimate, hardware, shapes, share)


def _answers_per_second(store: Store, among: Collection[Address], device: Device) -> float | None:
    """How fast answers were written: their cost counts the tokens that were written, a plan those that may be."""
    answers = seconds = 0.0
    for artefact in filter(None, map(store.get_unverified, sorted(among))):
        made_on, file = artefact.cost.device, artefact / FILE
        if artefact.address.kind == ANSWERS and made_on is not None and device.is_named(made_on) and file.is_file():
            with file.open("rb") as lines:
                answers += sum(1 for _ in lines)
            seconds += artefact.cost.seconds
    return answers / seconds if answers and seconds else None


@dataclass(frozen=True, slots=True)
class View:
    """The forecast of a suite as a terminal shows it.

    Attributes:
        forecast: what is shown.
    """

    forecast: Forecast

    def renderables(self) -> Iterator[RenderableType]:
        """The hardware, a row per cell, the whole, and what all of it rests on."""
        found = self.forecast
        prepared, hardware = found.shapes.prepared, found.hardware
        frozen, device = prepared.inputs.frozen, hardware.device
        known = f"{device.peak(frozen.precision) / 1e12:,.3g} TFLOP/s ({device.peak_words(frozen.precision)})"
        read = "" if device.bandwidth == float("inf") else f", {device.bandwidth / 1e9:,.0f} GB/s"
        yield Text(
            f"{hardware}: {counted(hardware.count, 'device')} of {device.memory / 1e9:,.0f} GB, {known}{read}; "
            f"precision {prepared.suite.precision}: {frozen.precision.storage}, computed in {frozen.precision.compute}"
        )
        yield from without_weights(frozen.base)
        yield self._table()
        if len(found.cells) > MOST_ROWS:
            yield Text(f"and {counted(len(found.cells) - MOST_ROWS, 'more cell')}, which are not shown", style="dim")
        plan = found.schedule
        yield Text(
            f"the whole suite: {_tokens(found.whole)} tokens, {found.whole.flops / 1e15:,.3g} PFLOP, "
            f"{roughly(found.whole.seconds)} on one device"
            + ("" if hardware.count == 1 else f", about {roughly(plan.seconds)} on {hardware.count}")
            + one_process_words(prepared)
        )
        yield from map(Text, shared_trainings(found.graph))
        chain = [stage for stage in plan.chain if found.estimate.flops(stage)]
        names = list(dict.fromkeys(f"{stage.owner}: {stage.label}" for stage in chain))
        yield Text(
            f"the longest chain, which no number of devices makes shorter: {roughly(plan.chain_seconds)} "
            f"({' → '.join(names) or 'nothing'})"
        )
        yield Text(f"{found.basis()}; without reading rows and loading models", style="dim")
        yield Text(
            f"memory: of one process, from the model's shape; a cell fits with {ROOM:g} times that, for what "
            "torch keeps and does not use. Compared with measurements of small models only, so it may be off by a "
            "factor of 2",
            style="dim",
        )

    def _table(self) -> Table:
        found = self.forecast
        suite = found.shapes.prepared.suite
        table = Table(title=escape(f"{suite.name} on {found.hardware}: {counted(len(found.graph.cells), 'cell')}"))
        table.add_column("cell")
        for heading in ("tokens", "TFLOP", "time on one device", "memory at the peak", f"{found.hardware.device.name}"):
            table.add_column(heading, justify="right")
        for cell in found.cells[:MOST_ROWS]:
            memory = "not known" if cell.peak is None else f"{cell.peak.bytes / 1e9:,.1f} GB"
            verdict = "not known" if cell.peak is None else "fits" if cell.fits else "[red]does not fit[/]"
            table.add_row(escape(str(cell.cell)), *_words(cell.work), memory, verdict)
        if found.shared.tokens:
            table.add_row("shared by cells", *_words(found.shared), "", "")
        return table

    def refuse(self) -> None:
        """Nothing where all cells fit.

        Raises:
            SuiteError: some do not; the fix is a line of settings with which they do, as far as there is one.
        """
        found = self.forecast
        device, suite = found.hardware.device, found.shapes.prepared.suite
        without = [cell for cell in found.cells if not cell.fits]
        if not without:
            return
        most = max(cell.peak.bytes for cell in without if cell.peak is not None)
        names = ", ".join(str(cell.cell) for cell in without[:MOST_NAMED])
        more = f" and {len(without) - MOST_NAMED} more" if len(without) > MOST_NAMED else ""
        better = proposal(found.all_cells, found.shapes, device)
        larger = roomy(most)
        instead = f"as it is, it fits on {', '.join(larger)}" if larger else "as it is, it fits on no GPU known here"
        if better is None:
            fix = (
                "no smaller micro-batch or batch of answers is enough, nor are activation checkpointing and nf4; "
                f"{instead}"
            )
        else:
            fix = f"{better.line()} fits, with about {better.bytes / 1e9:,.1f} GB at the peak; {instead}"
        raise SuiteError(
            f"{suite.name}: {len(without)} of {counted(len(found.cells), 'cell')} do not fit into the "
            f"{device.memory / 1e9:,.0f} GB of {device.name} (the largest takes about {most / 1e9:,.1f} GB, and "
            f"{ROOM - 1:.0%} more for what torch keeps): {names}{more}",
            fix=fix,
        )


def _words(work: Work) -> tuple[str, str, str]:
    return _tokens(work), f"{work.flops / 1e12:,.4g}", roughly(work.seconds)


def _tokens(work: Work) -> str:
    return f"{work.tokens:,}"
