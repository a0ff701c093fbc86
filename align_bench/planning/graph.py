"""Suite × methods × parameters × seeds → stages, and the cells that are views of them.

What a graph asks for may rest on results: with `tune:`, a method's cells follow from its trials. So a graph is made
from what is known so far, and made again until it asks for nothing new (`runner.run`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from align_bench.errors import SuiteError, nearest
from align_bench.planning.cells import Cell, Panelist
from align_bench.planning.layout import Layout, refuse_judge_as_reward
from align_bench.planning.starts import Starts
from align_bench.planning.tuning import Search, Searches
from align_bench.planning.variants import named_variants, variant
from align_bench.records import CellId
from align_bench.stages.overlap import Overlap
from align_bench.stages.stage import closure_of
from align_bench.stages.tokens import Tokens
from align_bench.store.keys import content_key
from align_bench.suite.models import (
    GoldJudge,
    LoadedJudge,
    TrainedJudge,
    judge_cell,
    judge_names,
)

if TYPE_CHECKING:
    from align_bench.planning.inputs import Prepared
    from align_bench.planning.known import Known
    from align_bench.plugins.registry import Registry
    from align_bench.records import TokenTable
    from align_bench.stages.stage import Stage


@dataclass(frozen=True)
class Graph:
    """All that a suite asks for, as far as it is known.

    Attributes:
        tables: split (`train`, `val`, `test` where there is one, `judge`, `judge2`, …) → its tokenised table.
        panel: the judges, the main one first.
        base: the untrained base.
        cells: one for each method, parameters and seed, in the suite's order.
        searches: a tuned method's cells without their seed → its trials; empty without `tune`.
        trial_base: the base on the held-out pairs, which the trials of policies are measured beside.
        held_out: `train`, what trials train on, and `val`, what they are measured on; empty without `tune`.
    """

    tables: Mapping[str, Tokens]
    panel: tuple[Panelist, ...]
    base: Cell
    cells: tuple[Cell, ...]
    searches: Mapping[CellId, Search] = field(default_factory=dict)
    trial_base: Cell | None = None
    held_out: Mapping[str, Stage[TokenTable]] = field(default_factory=dict)

    @property
    def judges(self) -> tuple[Cell, ...]:
        """The cells of all judges, members of ensembles one by one."""
        return tuple(cell for judge in self.panel for cell in judge.members)

    @property
    def trials(self) -> tuple[Cell, ...]:
        """The cells of all trials, without the base's."""
        return tuple(itertools.chain(*(search.cells for search in self.searches.values())))

    @property
    def shown(self) -> tuple[Cell, ...]:
        """The cells of a report, in its order."""
        return (*self.judges, self.base, *self.cells)

    @cached_property
    def stages(self) -> tuple[Stage[object], ...]:
        """Every stage once, after what it needs: trials first, then what scores answers, then what writes them."""
        scorers_first = sorted((*self.judges, self.base, *self.cells), key=lambda cell: cell.kind != "reward")
        roots: list[Stage[object]] = [*self.tables.values()]
        roots += [judge.overlap for judge in self.panel if judge.overlap is not None]
        roots += [stage for cell in self.trials for stage in cell.stages]
        roots += [search.choice for search in self.searches.values() if search.choice is not None]
        roots += [stage for cell in scorers_first for stage in cell.stages]
        return tuple(closure_of(roots))

    @cached_property
    def key(self) -> str:
        """Changes whenever any artefact would."""
        return content_key(sorted(str(stage.address) for stage in self.stages))


def make_graph(prepared: Prepared, known: Known) -> Graph:
    """Lay out the whole suite, as far as it follows from what is known.

    Raises:
        SuiteError: for a parameter that a method does not have, a value out of its bounds, or a reward that no cell is.
        PluginError: for an unknown method, or one whose file is broken.
    """
    suite, registry, inputs = prepared.suite, prepared.registry, prepared.inputs
    tables = {
        split: Tokens(
            owner=split,
            rows=rows,
            frozen=inputs.frozen,
            max_length=suite.train.max_length,
            max_dropped=suite.data.max_dropped,
        )
        for split, rows in inputs.rows.items()
    }
    rows, test = inputs.rows, tables.get("test")
    layout = Layout(suite, inputs.frozen, rows["train"], tables["val"], rows["val"], test=test)
    panel = _panel(prepared, layout, tables)
    named = named_variants(suite, registry)
    starts = Starts(named, registry, inputs.starts)
    searched = Searches(prepared, layout, tables, named, starts, known) if suite.tune else None
    searches = searched.searches() if searched else {}
    for name, search in searches.items():
        if search.kept is not None:
            found = search.cells[search.kept].all_parameters
            named[name] = variant(registry[named[name].method].algorithm, found, where=f"trials of {name}")
    if searches:
        starts = Starts(named, registry, inputs.starts)  # what was found may name other rewards
    judges = [cell for judge in panel for cell in judge.members]
    policies = any(registry[point.method].algorithm.kind == "policy" for point in named.values())
    base = layout.base(suite.seeds[0], judges, answers=policies)
    entries = [
        (replace(name, seed=seed) if len(suite.seeds) > 1 else name, point, seed)
        for seed, (name, point) in itertools.product(suite.seeds, named.items())
    ]
    laid_out: dict[CellId, Cell] = {}
    for identity, point, seed in starts.in_order(entries):
        name = identity.method
        plugin = registry[point.method]
        reward = None
        if plugin.algorithm.rewarded:
            learned_from = starts.reward(point)
            reward = None if learned_from is None else laid_out[replace(learned_from, seed=identity.seed)]
            refuse_judge_as_reward(point, reward, panel)
        start = starts.of(identity, point, laid_out.__getitem__)
        cell = layout.cell(identity, plugin, point, seed, tables["train"], judges, reward, start)
        missing = searches[name].missing if name in searches else None
        rests_on = [one for one in (reward, start.cell if start else None) if one is not None]
        waiting = f"not tuned: {missing}" if missing else next((one.waiting for one in rests_on if one.waiting), None)
        laid_out[identity] = replace(cell, waiting=waiting)
    cells = tuple(laid_out[identity] for identity, *_ in entries)
    base = replace(base, stages=(*base.stages, *layout.base_proxies(base, cells)))
    if searched is None:
        return Graph(tables, panel, base, cells)
    return Graph(tables, panel, base, cells, searches, searched.base, searched.tables)


def _panel(prepared: Prepared, layout: Layout, tables: Mapping[str, Tokens]) -> tuple[Panelist, ...]:
    """The judges of the suite, in its order."""
    judges = prepared.suite.judge
    found = []
    for place, (name, judge) in enumerate(zip(judge_names(judges), judges, strict=True)):
        cell = judge_cell(place)
        if isinstance(judge, GoldJudge):
            found.append(Panelist(name, judge, (), None))
        elif isinstance(judge, LoadedJudge):
            found.append(Panelist(name, judge, (layout.loaded(cell, prepared.inputs.classifiers[cell]),), None))
        else:
            overlap = Overlap(owner=cell, judge=tables[cell], train=tables["train"], name=name)
            members = _members(cell, judge, prepared.registry, layout, tables[cell])
            found.append(Panelist(name, judge, members, overlap))
    return tuple(found)


def _members(
    cell: str, judge: TrainedJudge, registry: Registry, layout: Layout, table: Stage[TokenTable]
) -> tuple[Cell, ...]:
    plugin = registry[judge.method]
    if plugin.algorithm.kind != "reward":
        rewards = [name for name, other in registry.plugins.items() if other.algorithm.kind == "reward"]
        raise SuiteError(
            f"judge.method: {judge.method} trains a policy, expected a reward method. "
            + nearest(judge.method, rewards, what="reward method")
        )
    point = variant(plugin.algorithm, judge.parameters, where="judge.parameters")
    if point.start_from is not None:
        raise SuiteError(
            f"judge.parameters: start_from: got {point.start_from!r}, but judges start from the base: a judge that "
            "shares a start with some of the methods is no independent judge of them",
            fix="delete start_from; a reward model under methods can have one",
        )
    seeds = range(judge.seed, judge.seed + (judge.ensemble.size if judge.ensemble else 1))
    return tuple(
        replace(
            layout.cell(CellId(cell, seed=seed if judge.ensemble else None), plugin, point, seed, table, (), None),
            is_judge=True,
        )
        for seed in seeds
    )
