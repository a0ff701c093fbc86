"""The trials of a suite with `tune`, each trained on a part of train and measured on the rest.

They are points of each method's ranges, or the values that the suite lists.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

from align_bench.errors import SuiteError, nearest
from align_bench.planning.cells import Cell
from align_bench.planning.layout import Layout
from align_bench.planning.variants import Variant, variant
from align_bench.records import START_SETTINGS, CellId
from align_bench.stages.holdout import HoldoutSplit
from align_bench.stages.stage import closure_of
from align_bench.stages.tokens import Tokens
from align_bench.stages.train import Trained
from align_bench.stages.trials import Trials
from align_bench.stages.validate_policy import ValidatePolicy
from align_bench.stages.validate_reward import ValidateReward
from align_bench.suite.names import BASE_CELL

if TYPE_CHECKING:
    from align_bench.api import Algorithm
    from align_bench.planning.inputs import Prepared
    from align_bench.planning.known import Known
    from align_bench.planning.starts import Start, Starts
    from align_bench.plugins.registry import Plugin, Registry
    from align_bench.records import Parameters, TokenTable
    from align_bench.stages.stage import Stage
    from align_bench.suite.models import Tune

MEASURED_ON = "held-out pairs"


def points(algorithm: Algorithm, given: Parameters, tune: Tune) -> list[Parameters]:
    """The hyper-parameters of a method's trials.

    They are all combinations of the values that the suite lists for it; or else the given ones, then points of its
    declared ranges. A random point depends on the seed, the method and its own number only, so more trials keep the
    earlier ones. A grid has the fewest equal steps on every range that make enough points; where they make more, a
    seeded draw of them.

    Args:
        algorithm: the method.
        given: all its hyper-parameters, `learning_rate` included.
        tune: how many, and by which search, or which values.

    Returns:
        Points, each with all hyper-parameters that are given or tried; none for a method without ranges or training.
    """
    if listed := (tune.methods or {}).get(algorithm.name):
        return [{**given, **dict(zip(listed, values, strict=True))} for values in itertools.product(*listed.values())]
    ranges = algorithm.searched
    if not ranges:
        return []
    shares = {"random": _random, "grid": _grid}[tune.search](
        tune.trials - 1, len(ranges), f"{tune.seed}/{algorithm.name}"
    )
    drawn = [
        {name: _typed(algorithm, name, span.at(share)) for (name, span), share in zip(ranges.items(), own, strict=True)}
        for own in shares
    ]
    return [dict(given), *({**given, **point} for point in drawn)]


def _random(count: int, axes: int, seed: str) -> list[list[float]]:
    """Points of the unit cube, each from a generator of its own."""
    generators = [random.Random(f"tune/{seed}/{number}") for number in range(count)]
    return [[generator.random() for _ in range(axes)] for generator in generators]


def _grid(count: int, axes: int, seed: str) -> list[list[float]]:
    """Points of a regular grid over the unit cube, its ends included."""
    steps = 2
    while steps**axes < count:
        steps += 1
    numbers = random.Random(f"tune/{seed}").sample(range(steps**axes), count)
    return [[number // steps**axis % steps / (steps - 1) for axis in range(axes)] for number in numbers]


def _typed(algorithm: Algorithm, name: str, value: float) -> float:
    whole = name in algorithm.parameters and algorithm.parameters[name].type is int
    return round(value) if whole else value


@dataclass(frozen=True, slots=True)
class Search:
    """A method's trials, in a suite with `tune`.

    Attributes:
        name: the method's cells, without their seed.
        cells: its trials, in order; none for a method without ranges.
        open: those that have not ended; one that failed permanently has.
        choice: which is kept; None until all trials have ended.
        missing: the stage that the choice waits for, as a reason; None when all have ended.
        kept: the number of the trial whose setting is kept; None until that is known.
    """

    name: CellId
    cells: tuple[Cell, ...]
    open: tuple[Cell, ...] = ()
    choice: Trials | None = None
    missing: str | None = None
    kept: int | None = None


class Searches:
    """The trials of a suite with `tune`, all with its first seed; they have no judge, and nothing is generated."""

    def __init__(
        self,
        prepared: Prepared,
        layout: Layout,
        tables: Mapping[str, Tokens],
        named: Mapping[CellId, Variant],
        starts: Starts,
        known: Known,
    ) -> None:
        suite = prepared.suite
        assert suite.tune is not None
        self._suite, self._registry, self._known = suite, prepared.registry, known
        self._named, self._starts = named, starts
        self.tables: dict[str, Stage[TokenTable]] = {
            "train": _part("train", tables, suite.tune),
            "val": _part("val", tables, suite.tune),
        }
        self._layout = replace(layout, val=self.tables["val"], shown=MEASURED_ON, test=None)
        self.base = Cell(CellId(BASE_CELL), None, {}, None, suite.seeds[0], (self._layout.base_pairs(),))

    def searches(self) -> dict[CellId, Search]:
        """A tuned method's cells without their seed → its trials, in the suite's order.

        Raises:
            SuiteError: `tune` names a method that the suite has not, a value that its method does not take, or chooses
                by loss where there is none.
        """
        tune, seed = self._suite.tune, self._suite.seeds[0]
        assert tune is not None
        _check(tune, self._registry, {point.method for point in self._named.values()})
        found: dict[CellId, Search] = {}
        for name, point, _ in self._starts.in_order((name, point, seed) for name, point in self._named.items()):
            if tune.methods is not None and point.method not in tune.methods:
                continue
            plugin = self._registry[point.method]
            start = self._starts.of(name, point, partial(self._begun, found=found))
            tried = points(plugin.algorithm, point.everything, tune)
            cells = tuple(
                self._trial(replace(name, trial=number), plugin, one, start, found) for number, one in enumerate(tried)
            )
            found[name] = self._search(name, cells)
        return {name: found[name] for name in self._named if name in found}

    def _begun(self, name: CellId, found: Mapping[CellId, Search]) -> Cell:
        """What trials rest on: the cell with its given parameters, on the rows that trials train on."""
        point = self._named[name]
        start = self._starts.of(name, point, partial(self._begun, found=found))
        return self._trial(replace(name, trial=0), self._registry[point.method], point.everything, start, found)

    def _reward(self, point: Variant, found: Mapping[CellId, Search]) -> Cell | None:
        """What a trial learns from or picks by: the first trial of that reward model, as the suite gives it."""
        name = self._starts.reward(point) if self._registry[point.method].algorithm.rewarded else None
        if name is None:
            return None
        return found[name].cells[0] if name in found and found[name].cells else self._begun(name, found)

    def _trial(
        self,
        identity: CellId,
        plugin: Plugin,
        parameters: Parameters,
        start: Start | None,
        found: Mapping[CellId, Search],
    ) -> Cell:
        point = variant(plugin.algorithm, parameters, where=f"trials of {identity}")
        reward = self._reward(point, found)
        train, seed = self.tables["train"], self._suite.seeds[0]
        cell = self._layout.cell(identity, plugin, point, seed, train, (), reward, start)
        measured = (Trained, ValidatePolicy, ValidateReward)
        return replace(cell, stages=tuple(stage for stage in cell.stages if isinstance(stage, measured)))

    def _search(self, name: CellId, cells: tuple[Cell, ...]) -> Search:
        if not cells:
            return Search(name, ())
        ended: list[bool] = []
        open_: list[tuple[Cell, Stage[object]]] = []
        for cell in cells:
            absent = [stage for stage in cell.stages if self._known.facts(stage) is None]
            if absent and not any(self._known.failure(stage) for stage in closure_of(cell.stages)):
                open_.append((cell, absent[0]))
            ended.append(not absent)
        if open_:
            first, stage = open_[0]
            still = tuple(cell for cell, _ in open_)
            return Search(name, cells, still, missing=f"{first.id}: {stage.label}: not stored")
        assert self._suite.tune is not None
        policy = cells[0].kind == "policy"
        measured = tuple(cell.validation if done else None for cell, done in zip(cells, ended, strict=True))
        choice = Trials(
            owner=str(name),
            measured=measured,
            base=self.base.validation if policy and any(ended) else None,
            table=self.tables["val"],
            scalar=not policy,
            choose_by=self._suite.tune.choose_by,
        )
        facts = self._known.facts(choice)
        missing = None if facts else f"{choice.owner}: {choice.label}: not stored"
        return Search(name, cells, (), choice, missing, None if facts is None else cast("int", facts["kept"]))


def _check(tune: Tune, registry: Registry, methods: Collection[str]) -> None:
    """Every method that `tune` names must be known, and those of the suite must have what the choice is made by."""
    for name in tune.methods or ():
        if name not in registry.plugins:
            raise SuiteError(f"tune.methods: no method {name!r}. {nearest(name, registry.plugins, what='method')}")
        for setting in START_SETTINGS:
            if setting in ((tune.methods or {}).get(name) or {}):
                raise SuiteError(
                    f"tune.methods: {name}: {setting}: what a method starts from is not tuned: trials are compared by "
                    "measures that rest on it",
                    fix=f"give it under methods, where several make a grid: {name}: {{{setting}: …}}",
                )
    tuned = [name for name in methods if tune.methods is None or name in tune.methods]
    policies = sorted(name for name in tuned if registry[name].algorithm.kind == "policy")
    if tune.choose_by == "loss" and policies:
        raise SuiteError(
            f"tune.choose_by: loss is of reward models, and {', '.join(policies)} trains a policy: the losses of "
            "methods, and of one method's settings, have different units",
            fix="choose by accuracy, or name the reward models under tune.methods",
        )


def _part(part: Literal["train", "val"], tables: Mapping[str, Tokens], tune: Tune) -> HoldoutSplit:
    train, val = tables["train"], tables["val"]
    return HoldoutSplit(owner=part, part=part, train=train, val=val, share=tune.holdout, seed=tune.seed)
