"""What `align-bench plan` shows: the cells, what is stored of each, and a rough cost of the rest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from align_bench.cli.plan_settings import (
    allocator_words,
    cuts,
    lengths_of,
    memory_words,
    one_process_words,
    rows_table,
    settings_table,
)
from align_bench.models.base import base_parameters
from align_bench.models.peak import rough_flops
from align_bench.planning.estimate import Estimate
from align_bench.planning.graph import make_graph
from align_bench.planning.sharing import shared_trainings
from align_bench.report.formatting import counted
from align_bench.runner.results import Glance, Results
from align_bench.runner.run import stages_to_run, warnings
from align_bench.runner.tuning import describe
from align_bench.stages.stage import closure_of
from align_bench.stats.power import MOST_SEEDS, power_between_methods, seeds_needed
from align_bench.stats.seeds import MIN_SEEDS
from align_bench.store.notes import RunNote
from align_bench.store.store import Store
from align_bench.suite.models import GoldJudge

if TYPE_CHECKING:
    from rich.console import RenderableType

    from align_bench.models.base import Base
    from align_bench.planning.cells import Cell
    from align_bench.planning.graph import Graph
    from align_bench.planning.inputs import Prepared
    from align_bench.records import CellId
    from align_bench.stages.stage import Size, Stage
    from align_bench.store.keys import Address
    from align_bench.suite.layers import Layer

WANTED = (0.1, 0.2, 0.5)
ASSUMED_SEED_NOISE = 0.1
MOST_ROWS = 500  # of the table of cells


def plan_tables(prepared: Prepared, runs: Path, layers: Sequence[Layer] = ()) -> Iterator[RenderableType]:
    """The settings, the rows, and a table of cells with their stages: stored, or estimated seconds and why.

    Args:
        prepared: from `planning.inputs.prepare`.
        runs: the folder of what has been computed.
        layers: the suite's files, for where a setting comes from.

    Raises:
        AlignBenchError: for a folder of another version.
    """
    store = Store(runs)
    store.check()
    results = Glance(store)
    graph = make_graph(prepared, results)
    lengths = lengths_of(prepared, graph)
    estimate = _estimate(
        prepared, graph, results, {graph.tables[split]: found.size for split, found in lengths.items()}
    )
    frozen = prepared.inputs.frozen
    yield settings_table(prepared, layers)
    yield rows_table(prepared, graph, lengths, results)
    table = Table(
        title=Text(
            f"{prepared.suite.name}: {counted(len(graph.cells), 'cell')} on {frozen.base.name}, {frozen.precision}"
        )
    )
    cells = (*graph.trials, graph.base, *graph.judges, *graph.cells)
    ended = _ended_without(graph, results)
    columns = list(dict.fromkeys(stage.column for cell in _in_order(cells) for stage in cell.stages if stage.column))
    for heading in ("cell", "seed", *columns):
        table.add_column(heading, overflow="fold")
    for cell in cells[:MOST_ROWS]:
        under = [[stage for stage in cell.stages if stage.column == column] for column in columns]
        table.add_row(
            escape(str(cell.id)), str(cell.seed), *(_shown(stages, results, estimate, ended) for stages in under)
        )
    yield table
    if len(cells) > MOST_ROWS:
        yield Text(f"and {counted(len(cells) - MOST_ROWS, 'more cell')}, which are not shown", style="dim")
    if chains := list(dict.fromkeys(" → ".join(cell.chain) for cell in graph.cells if cell.start)):
        yield Text(f"each starts from the one before: {'; '.join(chains[:MOST_ROWS])}")
    absent = [stage for stage in graph.stages if results.facts(stage) is None]
    missing = [stage for stage in absent if stage not in ended]
    yield Text(
        f"artefacts: {len(graph.stages)} in all, {len(absent)} not stored; "
        f"{_steps(prepared, graph, estimate)} optimizer steps per policy cell trained on pairs; "
        f"missing work: {sum(map(estimate.flops, missing)) / 1e12:,.1f} TFLOP, "
        f"about {roughly(sum(map(estimate.seconds, missing)))}{one_process_words(prepared)}"
    )
    yield Text(estimate.basis(missing), style="dim")
    yield Text(memory_words(prepared, lengths, graph, results))
    yield from map(Text, allocator_words(frozen.precision))
    yield from map(Text, shared_trainings(graph))
    yield from without_weights(frozen.base)
    yield from map(Text, claims_of(prepared, graph))
    for search in graph.searches.values():
        yield Text(describe(search, results))
    for warning in (*warnings(graph), *cuts(prepared, lengths)):
        yield Text(warning, style="yellow")


@dataclass(frozen=True, slots=True)
class Remaining:
    """What a run has yet to make.

    Attributes:
        seconds: owner and label of a missing stage → its expected seconds; stages over in a moment are absent.
        missing, stored: how many artefacts are missing, and how many are there.
    """

    seconds: dict[tuple[str, str], float]
    missing: int
    stored: int

    def found(self) -> str | None:
        """What a run goes on with, in a sentence; None for one that starts from nothing or has nothing to do."""
        if not (self.missing and self.stored):
            return None
        return (
            f"{self.stored} of {self.stored + self.missing} results are stored; "
            f"the rest takes about {roughly(sum(self.seconds.values()))}"
        )


def remaining(prepared: Prepared, runs: Path, methods: Sequence[str] | None = None) -> Remaining:
    """What a run has yet to make.

    Args:
        prepared, runs: as `plan_tables` takes them.
        methods: count the cells of these methods only, with the base and the judges.
    """
    store = Store(runs)
    store.check()
    results = Glance(store)
    graph = make_graph(prepared, results)
    waiting = [cell for cell in graph.cells if cell.waiting and (methods is None or cell.algorithm in methods)]
    asked = [*stages_to_run(graph, methods), *(stage for cell in waiting for stage in cell.stages)]
    every = closure_of(asked)
    missing = closure_of(asked, done=lambda stage: results.facts(stage) is not None)
    stored = sum(results.facts(stage) is not None for stage in every)
    if not missing:
        return Remaining({}, 0, stored)
    estimate = _estimate(prepared, graph, results)
    expected = {(stage.owner, stage.label): estimate.seconds(stage) for stage in missing}
    return Remaining({stage: seconds for stage, seconds in expected.items() if seconds}, len(missing), stored)


def without_weights(base: Base) -> Iterator[Text]:
    """A line where the base's weights are not at hand; nothing else."""
    if not base.has_weights:
        yield Text(
            f"{base.folder} holds no weights: they are counted by its config.json, and nothing was measured with them. "
            "A run needs them",
            style="yellow",
        )


def claims_of(prepared: Prepared, graph: Graph) -> Iterator[str]:
    """How many seeds a difference between methods takes, and what the suite's own can find; nothing of one method."""
    suite = prepared.suite
    policies = {cell.id.method for cell in graph.cells if cell.kind == "policy"}
    rewards = {cell.id.method for cell in graph.cells if cell.kind == "reward"}
    rows = prepared.inputs.rows["val"].read().rows
    gold = any(row.gold is not None for row in rows)
    judges = sum(not isinstance(judge, GoldJudge) for judge in suite.judge) + gold
    # Policies with each other and the base, by their mean log-probability of the pairs and by each judge, gold among
    # them, and with each other by the log-ratio; reward models by all pairs and, where gold is known, by those whose
    # right answer is the shorter.
    against = frozenset(suite.report.against or ())
    duels = _duels(policies, against)
    tests = (duels + len(policies)) * (1 + judges) + duels + _duels(rewards, against) * (1 + gold)
    if not tests:
        return
    prompts = len({row.prompt for row in rows})
    prompts = min(prompts, suite.generate.prompts) if policies else prompts
    noise = ASSUMED_SEED_NOISE if suite.report.seed_noise is None else suite.report.seed_noise
    wanted = {f"dz {dz:g}": dz for dz in WANTED}
    needed = {name: seeds_needed(dz, noise, prompts, tests) for name, dz in wanted.items()}
    yield (
        "seeds needed to find a difference between two methods with 80% power: "
        + ", ".join(f"{count or f'more than {MOST_SEEDS}'} for {name}" for name, count in needed.items())
        + " (in standard deviations, over prompts, of the difference between two checkpoints)"
    )
    powers = {name: power_between_methods(dz, noise, len(suite.seeds), prompts, tests) for name, dz in wanted.items()}
    if None in powers.values():
        yield (
            f"this suite's {'one seed says' if len(suite.seeds) == 1 else 'two seeds say'} which checkpoint is better, "
            f"not which method: claims about methods take {MIN_SEEDS} seeds or more"
        )
    else:
        found = ", ".join(f"{power:.0%} for {name}" for name, power in powers.items())
        yield f"power of this suite's {len(suite.seeds)} seeds: {found}"
    source = (
        "assumed: `report: {seed_noise: …}` declares another"
        if suite.report.seed_noise is None
        else "by `report: seed_noise`"
    )
    family = f"{tests} test{'s' * (tests > 1)}"
    yield f"on {prompts:,} prompts, in a family of {family}, for a seed noise of dz {noise:g} ({source})"


def _duels(methods: Collection[CellId], against: Collection[str]) -> int:
    """How many pairs of these methods are compared: all of them, or those with one that the suite names."""
    apart = [method for method in methods if method.name not in against]
    return comb(len(methods), 2) - (comb(len(apart), 2) if len(apart) < len(methods) else 0)


def _estimate(
    prepared: Prepared, graph: Graph, results: Results, sizes: Mapping[Stage[object], Size] | None = None
) -> Estimate:
    """By the rates that were measured wherever this suite ran."""
    frozen = prepared.inputs.frozen
    rates = measured_rates(prepared, graph, results)
    parameters, device = base_parameters(frozen.base), frozen.precision.device
    return Estimate(results, parameters, rates, lambda: rough_flops(frozen.precision), device, sizes or {})


def measured_rates(
    prepared: Prepared, graph: Graph, results: Results, made_on: Callable[[str], bool] | None = None
) -> dict[str, float]:
    """Tokens per second by kind, from this very suite, as it is and as its last run noted it: another base has others.

    Args:
        prepared, graph, results: the suite, and what is stored.
        made_on: only of what was made on a device of such a name.
    """
    rates = results.store.rates(of_suite(prepared, graph, results), made_on)
    return {kind: rate for kind, rate in rates.items() if kind != "tokens"}


def of_suite(prepared: Prepared, graph: Graph, results: Results) -> set[Address]:
    """The suite's artefacts: those that are stored, and those that its last run noted."""
    noted = results.store.notes.get(prepared.suite.name) or RunNote()
    return {*noted.needs, *(stage.address for stage in graph.stages if results.facts(stage) is not None)}


def _in_order(cells: Sequence[Cell]) -> list[Cell]:
    """Cells so that their stages' columns come in the order of the work: those that train before the base."""
    return sorted(cells, key=lambda cell: (cell.adapter is None, cell.kind == "reward"))


def _ended_without(graph: Graph, results: Results) -> set[Stage[object]]:
    """Stages of trials that have failed for good, which a run does not try again."""
    given_up = [cell for search in graph.searches.values() for cell in search.cells if cell not in search.open]
    return {stage for cell in given_up for stage in cell.stages if results.facts(stage) is None}


def _shown(
    stages: Sequence[Stage[object]], results: Results, estimate: Estimate, ended: Collection[Stage[object]]
) -> str:
    absent = [stage for stage in stages if results.facts(stage) is None]
    if absent and all(stage in ended for stage in absent):
        return "[red]failed[/]"
    if absent:
        return f"~{roughly(sum(map(estimate.seconds, absent)))}"
    return "[green]stored[/]" if stages else "–"


def _steps(prepared: Prepared, graph: Graph, estimate: Estimate) -> str:
    """The optimizer steps of the policies that are trained on pairs: one number, or the lowest and the highest."""
    rows = estimate.size(graph.tables["train"]).rows
    own = [
        cell.adapter.settings
        for cell in graph.cells
        if cell.adapter is not None and cell.kind == "policy" and cell.adapter.plugin.algorithm.data == "pairs"
    ]
    counts = sorted({-(-rows // train.batch_size) * train.epochs for train in own or [prepared.suite.train]})
    return "–".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))


def roughly(seconds: float) -> str:
    """An estimate in two digits or so."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"
