"""The trials of a suite with `tune`: settings that are tried on a part of train and measured on the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from align_bench.planning.cells import Cell
from align_bench.planning.layout import Layout, reward_of, rewards_first
from align_bench.planning.search import points
from align_bench.planning.variants import Variant, variant
from align_bench.stages.held_out import HeldOut
from align_bench.stages.stage import closure_of
from align_bench.stages.tokens import Tokens
from align_bench.stages.train import Trained
from align_bench.stages.trials import Trials
from align_bench.stages.validate_policy import ValidatePolicy
from align_bench.stages.validate_reward import ValidateReward
from align_bench.suite.models import (
    BASE_CELL,
)

if TYPE_CHECKING:
    from align_bench.planning.inputs import Prepared
    from align_bench.planning.known import Known
    from align_bench.plugins.registry import Plugin
    from align_bench.records import TokenTable
    from align_bench.stages.stage import Stage


MEASURED_ON = "held-out pairs"


@dataclass(frozen=True, slots=True)
class Search:
    """A method's trials, in a suite with `tune`.

    Attributes:
        name: the method's cells, without their seed.
        cells: its trials, in order, the first of them with the given parameters; none for a method without ranges.
        open: those that have not ended; one that failed for a reason that stays has.
        choice: which is kept; None until all trials have ended.
        missing: the stage that the choice waits for, as a reason; None when all have ended.
        kept: the number of the trial whose setting is kept; None until that is known.
    """

    name: str
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
        named: Mapping[str, Variant],
        known: Known,
    ) -> None:
        suite = prepared.suite
        assert suite.tune is not None
        self._suite, self._registry, self._known = suite, prepared.registry, known
        self._named = named
        cut: dict[str, Any] = {"train": tables["train"], "val": tables["val"]}
        cut |= {"share": suite.tune.holdout, "seed": suite.tune.seed}
        self.tables: dict[str, Stage[TokenTable]] = {
            "train": HeldOut(owner="train", part="train", **cut),
            "val": HeldOut(owner="val", part="val", **cut),
        }
        self._layout = replace(layout, val=self.tables["val"], shown=MEASURED_ON)
        self.base = Cell(BASE_CELL, BASE_CELL, None, {}, None, suite.seeds[0], (self._layout.base_pairs(),))

    def searches(self) -> dict[str, Search]:
        """A method's cells without their seed → its trials, in the suite's order."""
        assert self._suite.tune is not None
        seed = self._suite.seeds[0]
        found: dict[str, Search] = {}
        for _, name, point, _ in rewards_first((name, name, point, seed) for name, point in self._named.items()):
            plugin = self._registry[point.method]
            rewards = [search.cells[0] for search in found.values() if search.cells]  # as the suite gives them
            reward = reward_of(point, seed, rewards, ()) if plugin.algorithm.rewarded else None
            tried = points(plugin.algorithm, point.everything, self._suite.tune)
            cells = tuple(
                self._trial(f"{name} trial {number}", plugin, one, reward) for number, one in enumerate(tried)
            )
            found[name] = self._search(name, cells)
        return {name: found[name] for name in self._named}

    def _trial(self, identity: str, plugin: Plugin, parameters: Mapping[str, Any], reward: Cell | None) -> Cell:
        point = variant(plugin.algorithm, parameters, where=f"trials of {identity}")
        train, seed = self.tables["train"], self._suite.seeds[0]
        cell = self._layout.cell(identity, identity, plugin, point, seed, train, (), reward)
        measured = (Trained, ValidatePolicy, ValidateReward)
        return replace(cell, stages=tuple(stage for stage in cell.stages if isinstance(stage, measured)))

    def _search(self, name: str, cells: tuple[Cell, ...]) -> Search:
        if not cells:
            return Search(name, ())
        ended: list[bool] = []
        open_: list[tuple[Cell, Stage[Any]]] = []
        for cell in cells:
            absent = [stage for stage in cell.stages if self._known.facts(stage) is None]
            if absent and not any(self._known.failure(stage) for stage in closure_of(cell.stages)):
                open_.append((cell, absent[0]))
            ended.append(not absent)
        if open_:
            first, stage = open_[0]
            still = tuple(cell for cell, _ in open_)
            return Search(name, cells, still, missing=f"{first.id}: {stage.label}: not stored")
        policy = cells[0].kind == "policy"
        measured = tuple(cell.validation if done else None for cell, done in zip(cells, ended, strict=True))
        choice = Trials(
            owner=name,
            measured=measured,
            base=self.base.validation if policy and any(ended) else None,
            table=self.tables["val"],
            scalar=not policy,
        )
        facts = self._known.facts(choice)
        missing = None if facts else f"{choice.owner}: {choice.label}: not stored"
        return Search(name, cells, (), choice, missing, None if facts is None else facts["kept"])
