"""A cell: a named view of the graph, which is a method with its parameters and seed, the base, or a judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from align_bench.records import START_SETTINGS
from align_bench.stages.answers import Answers
from align_bench.stages.classifier import Classifier
from align_bench.stages.columns import Measured
from align_bench.stages.drift import Drift
from align_bench.stages.train import Trained
from align_bench.suite.models import JUDGE_CELL, Ensemble, TrainedJudge

if TYPE_CHECKING:
    from align_bench.planning.starts import Start
    from align_bench.plugins.registry import Plugin
    from align_bench.records import CellId, Kind, Parameters, Scalar
    from align_bench.stages.models import RewardModel
    from align_bench.stages.overlap import Overlap
    from align_bench.stages.stage import Stage
    from align_bench.suite.models import AnyJudge

S = TypeVar("S", bound="Stage[object]")


@dataclass(frozen=True, slots=True)
class Cell:
    """A column of work.

    Attributes:
        id: unique in the suite; a judge is called `judge`, `judge2`, ….
        plugin: its method; None for the base and for a loaded judge.
        parameters: all hyper-parameters of the loss, resolved.
        learning_rate: peak learning rate; None for the base.
        seed: seed of initialisation, row order and sampling.
        stages: what it consists of, in the order in which plans show it; what it shares with all is not among them.
        settings: training settings of its own, in place of the suite's (`OWN_SETTINGS`).
        is_judge: whether it is a judge, or a member of a judge's ensemble (`judge#0`, `judge#1`, …).
        loaded: the model of a loaded judge.
        reward: the cell of the reward model that an online method learns from, or that a selection picks by; None for
            other methods and for `gold`.
        waiting: why it cannot be run yet: its parameters are still sought, or its reward's.
        start: what it starts from; None for the untrained base.
        test: its measurement of the test pairs, one of its stages; None without any, and for all but policies and base.
    """

    id: CellId
    plugin: Plugin | None
    parameters: Parameters
    learning_rate: float | None
    seed: int
    stages: tuple[Stage[object], ...]
    settings: Mapping[str, int] = field(default_factory=dict)
    is_judge: bool = False
    loaded: Classifier | None = None
    reward: Cell | None = None
    waiting: str | None = None
    start: Start | None = None
    test: Measured | None = None

    def all(self, kind: type[S]) -> tuple[S, ...]:
        """Its stages of a kind, in order."""
        return tuple(stage for stage in self.stages if isinstance(stage, kind))

    def the(self, kind: type[S]) -> S | None:
        """Its last stage of a kind; None without one. Of a selection's answers, that is what it picked."""
        found = self.all(kind)
        return found[-1] if found else None

    @property
    def adapter(self) -> Trained | None:
        """What it trains; None for the base, a selection and a loaded judge."""
        return self.the(Trained)

    @property
    def validation(self) -> Measured | None:
        """Its measurement of the validation pairs; None for a selection, which has none."""
        return next((stage for stage in self.all(Measured) if stage is not self.test), None)

    @property
    def answers(self) -> Answers | None:
        """Its answers to the validation prompts; None for reward models."""
        return self.the(Answers)

    @property
    def chain(self) -> tuple[str, ...]:
        """What it was trained after, from the first start on, and itself last: `sft`, `dpo`; seeds are left out."""
        own = tuple((name, value) for name, value in self.id.parameters if name not in START_SETTINGS)
        return (*(self.start.chain if self.start else ()), str(replace(self.id.method, parameters=own)))

    @property
    def drift(self) -> Drift | None:
        """How far it has moved from the base; None for all but trained policies."""
        return next((stage for stage in self.all(Drift) if not stage.from_start), None)

    @property
    def drift_from_start(self) -> Drift | None:
        """How far it has moved from what it starts from; None without a start."""
        return next((stage for stage in self.all(Drift) if stage.from_start), None)

    @property
    def scoring(self) -> RewardModel | Classifier | None:
        """What it scores answers with; None for policies and the base."""
        if self.loaded is not None:
            return self.loaded
        return self.adapter.model if self.adapter and self.adapter.scalar else None  # type: ignore[return-value]

    @property
    def algorithm(self) -> str:
        """The method's name; `base` for the base, `judge` for a judge."""
        if self.is_judge:
            return JUDGE_CELL
        return self.plugin.algorithm.name if self.plugin else self.id.name

    @property
    def kind(self) -> Kind:
        """What the cell holds: a reward model, a policy, or the base."""
        if self.loaded is not None:
            return "reward"
        return self.plugin.algorithm.kind if self.plugin else "base"

    @property
    def all_parameters(self) -> dict[str, Scalar]:
        """Hyper-parameters with the learning rate, as reports show them."""
        if self.loaded is not None:
            entry = self.loaded.entry
            return {"model": entry.title, "revision": entry.revision, "template": entry.template}
        if self.plugin is None:
            return {}
        judge = {"method": self.plugin.algorithm.name} if self.is_judge else {}
        rate = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        start = self.start.settings if self.start else {}
        return {**judge, **start, **rate, **self.settings, **self.parameters}

    @property
    def reward_definition(self) -> str:
        """The definition of its rewards of validation pairs."""
        return self.plugin.algorithm.reward if self.plugin else "" if self.loaded else "s̄"

    @property
    def outside(self) -> dict[str, tuple[float, str]]:
        """Hyper-parameter outside the range that its method declares → its value, and what that range is."""
        if self.plugin is None:
            return {}
        algorithm, given = self.plugin.algorithm, self.all_parameters
        return {
            name: (
                value,
                f"outside the range {found} that {algorithm.name} declares "
                f"({'LoRA adapters' if name == 'learning_rate' else algorithm.paper})",
            )
            for name, found in algorithm.ranges.items()
            if isinstance(value := given[name], int | float) and value not in found
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line for each hyper-parameter that is outside the range that its method declares."""
        return tuple(f"{name}={value:g} is {where}" for name, (value, where) in self.outside.items())

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of its numbers has to know beside its parameters."""
        if self.plugin is None:
            return ()
        algorithm = self.plugin.algorithm
        if self.start is None:
            return algorithm.remarks(self.parameters)
        return self.start.remark(self.chain), *algorithm.remarks(self.parameters, start=self.start.name)


@dataclass(frozen=True, slots=True)
class Panelist:
    """One judge of the suite.

    Attributes:
        name: the key of its scores.
        entry: the suite's entry.
        members: its cell, or one for each member of its ensemble; none for gold.
        overlap: how many of its training rows are also the policies'; None where it is not trained here.
    """

    name: str
    entry: AnyJudge
    members: tuple[Cell, ...]
    overlap: Overlap | None

    @property
    def ensemble(self) -> Ensemble | None:
        """How the members' scores make one; None for a single one."""
        return self.entry.ensemble if isinstance(self.entry, TrainedJudge) else None
