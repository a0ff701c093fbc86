"""What a suite takes on hardware that need not be here: tokens, operations, memory and time per cell and in all.

All stages are counted, whether they are stored or not. What brings nothing through a model (reading and tokenising
rows, loading models, the report) counts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING

from align_bench.models.base import base_parameters
from align_bench.planning.estimate import FULL_GPU_PARAMETERS, OFF_BY, utilisation
from align_bench.planning.fit import Peak, fits
from align_bench.planning.hardware import CPU
from align_bench.planning.memory import BYTES
from align_bench.planning.schedule import Schedule, schedule
from align_bench.stages.classifier import Classifier
from align_bench.stages.generate import Generate
from align_bench.stages.train_online import TrainOnline

if TYPE_CHECKING:
    from align_bench.planning.cells import Cell
    from align_bench.planning.estimate import Estimate
    from align_bench.planning.fit import Shapes
    from align_bench.planning.graph import Graph
    from align_bench.planning.hardware import Hardware
    from align_bench.records import CellId
    from align_bench.stages.stage import Stage


@dataclass(frozen=True, slots=True)
class Work:
    """What stages bring through models.

    Attributes:
        tokens: tokens.
        flops: floating-point operations.
        seconds: on one device.
    """

    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.flops + other.flops, self.seconds + other.seconds)


@dataclass(frozen=True, slots=True)
class CellForecast:
    """One cell.

    Attributes:
        cell: its identity.
        work: of its own stages; what an earlier cell asks for, too, is counted there.
        peak: its memory; None where that is not known.
        fits: whether the device has room for it.
    """

    cell: CellId
    work: Work
    peak: Peak | None
    fits: bool


@dataclass(frozen=True)
class Forecast:
    """A suite on some hardware.

    Attributes:
        graph: all that it asks for.
        estimate: counts tokens and operations, and knows the rates that were measured on such a device.
        hardware: what it runs on.
        shapes: tells the memory of cells.
        share: of the device's peak, that work without a measured rate is assumed to reach; None for the default.
    """

    graph: Graph
    estimate: Estimate
    hardware: Hardware
    shapes: Shapes
    share: float | None = None

    @property
    def assumed(self) -> float:
        """The share of the peak that work without a measured rate reaches."""
        device = CPU if self.hardware.device.name == CPU else "cuda"
        return utilisation(device, self.estimate.parameters) if self.share is None else self.share

    @cached_property
    def _flops_per_second(self) -> float:
        precision = self.shapes.prepared.inputs.frozen.precision
        return self.hardware.device.peak(precision) * self.assumed

    @cached_property
    def _work(self) -> dict[Stage[object], Work]:
        """Stage → its work, each stage after what it needs."""
        return {stage: self._work_of(stage) for stage in self.graph.stages}

    @cached_property
    def cells(self) -> tuple[CellForecast, ...]:
        """Every cell: trials first, then the base, the judges and the suite's cells."""
        counted: set[Stage[object]] = set()
        found = []
        for cell in self.all_cells:
            own = [stage for stage in dict.fromkeys(cell.stages) if stage not in counted]
            counted.update(own)
            peak = self.shapes.peak(cell, self.shapes.prepared.suite)
            work = _total(self._work[stage] for stage in own)
            found.append(CellForecast(cell.id, work, peak, fits(peak, self.hardware.device)))
        return tuple(found)

    @property
    def all_cells(self) -> tuple[Cell, ...]:
        """What `cells` are of, in the same order."""
        graph = self.graph
        return (*graph.trials, graph.base, *graph.judges, *graph.cells)

    @cached_property
    def whole(self) -> Work:
        """Of all stages, those that no cell calls its own included."""
        return _total(self._work.values())

    @property
    def shared(self) -> Work:
        """Of the stages that several cells need, such as the reference's log-probabilities."""
        own = _total(cell.work for cell in self.cells)
        whole = self.whole
        return Work(whole.tokens - own.tokens, whole.flops - own.flops, whole.seconds - own.seconds)

    @cached_property
    def schedule(self) -> Schedule[Stage[object]]:
        """All stages on the devices, one worker to as many as train a cell. What is not tuned waits for its trials."""
        needs = {stage: list(dict.fromkeys(stage.needs())) for stage in self._work}
        for cell in self.graph.cells:
            search = self.graph.searches.get(cell.id.method)
            for stage in cell.stages if search and cell.waiting else ():
                trials = [one for trial in search.cells for one in trial.stages] if search else []
                needs[stage] = list(dict.fromkeys([*needs[stage], *trials]))
        ordered = _in_order(needs)
        return schedule({stage: self._work[stage].seconds for stage in ordered}, needs, self.workers)

    @property
    def workers(self) -> int:
        """How many stages are made at a time."""
        return max(1, self.hardware.count // self.shapes.prepared.suite.train.processes)

    def seconds(self, stage: Stage[object]) -> float:
        """Seconds of one stage on one device."""
        return self._work[stage].seconds

    def basis(self) -> str:
        """What the times rest on, in words."""
        kinds = {stage.kind for stage, work in self._work.items() if work.tokens}
        measured, assumed = sorted(kinds & self.estimate.rates.keys()), sorted(kinds - self.estimate.rates.keys())
        parts = [f"measured on such a device, in this suite's own work, for {', '.join(measured)}"] if measured else []
        if assumed:
            device = self.hardware.device
            peak = device.peak_words(self.shapes.prepared.inputs.frozen.precision)
            given = "as --utilisation says" if self.share is not None else f"may be off by a factor of {OFF_BY} or more"
            small = "" if self.share is not None or device.name == CPU else _small(self.estimate.parameters)
            parts.append(
                f"assumed {100 * self.assumed:.2g}% of the {peak}{small} for {', '.join(assumed)}; "
                f"not measured, {given}"
            )
        return f"times: {'; '.join(parts) or 'no work is left'}"

    def _work_of(self, stage: Stage[object]) -> Work:
        tokens = stage.estimate(self.estimate.size).tokens
        if not tokens:
            return Work()
        flops = self.estimate.flops(stage)
        for model in stage.models()[:1]:
            if isinstance(model, Classifier):  # a judge that is loaded has weights of its own
                flops *= base_parameters(model.base) / self.estimate.parameters
        if stage.kind in self.estimate.rates:
            return Work(tokens, flops, self.estimate.seconds(stage))
        return Work(tokens, flops, max(flops / self._flops_per_second, self._reading(stage)))

    def _reading(self, stage: Stage[object]) -> float:
        """Seconds in which the weights are read from memory once for each token that a batch of answers is long."""
        if isinstance(stage, Generate):
            size, settings = self.estimate.size(stage.table), stage.settings
            answers = min(settings.prompts, size.prompts) * settings.samples
            passes = ceil(answers / settings.batch_size) * settings.max_new_tokens
        elif isinstance(stage, TrainOnline):
            longest = stage.parameters.get("max_new_tokens")
            steps = ceil(self.estimate.size(stage.table).rows / stage.settings.batch_size) * stage.settings.epochs
            passes = steps * longest if isinstance(longest, int) else 0
        else:
            return 0.0
        return passes * self._weight_bytes / self.hardware.device.bandwidth

    @cached_property
    def _weight_bytes(self) -> float:
        return self.estimate.parameters * BYTES[self.shapes.prepared.inputs.frozen.precision.storage]


def _small(parameters: int) -> str:
    if parameters >= FULL_GPU_PARAMETERS:
        return ""
    return f" (a model of {parameters / 1e6:,.0f} million parameters does not fill a GPU)"


def _total(works: Iterable[Work]) -> Work:
    found = Work()
    for work in works:
        found += work
    return found


def _in_order(needs: dict[Stage[object], list[Stage[object]]]) -> list[Stage[object]]:
    """All stages, each after what it needs."""
    found: dict[Stage[object], None] = {}

    def visit(stage: Stage[object]) -> None:
        if stage not in found:
            for needed in needs[stage]:
                visit(needed)
            found[stage] = None

    for stage in needs:
        visit(stage)
    return list(found)
