"""What every method declares, whatever it does: a loss, a whole training, or a choice among answers."""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from align_bench.api.declaring import RENAMED, checked_name, checked_text, in_short, is_number
from align_bench.api.docstrings import SECTIONS, described
from align_bench.api.hyperparameters import Parameter, Range, Value
from align_bench.api.loss import RewardField
from align_bench.errors import PluginError, nearest
from align_bench.records import OWN_SETTINGS, START_SETTINGS, Parameters

DataKind: TypeAlias = Literal["pairs", "chosen", "unpaired", "scores", "rollouts", "candidates"]

# By what a method learns from, but for pairs.
FAMILIES: Mapping[str, str] = {
    "chosen": "Chosen answers",
    "unpaired": "Single answers",
    "scores": "Reward models",
    "rollouts": "Online, against a reward",
    "candidates": "Choice among answers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm(ABC):
    """A declared method, and all that the benchmark needs to know of it.

    Attributes:
        name: the function's name; how suites call it.
        function: what was decorated.
        data: what it learns from, or picks among: `pairs`, `chosen`, `unpaired`, `scores`, `rollouts` or `candidates`.
        paper: where it comes from, such as `arXiv:2305.18290`.
        parameters: name → hyper-parameter.
        doc: the docstring, dedented.
        reward: definition of its rewards of validation pairs, in one phrase; empty where it has none.
        reference: whether it reads reference log-probabilities.
        learning_rate: default for LoRA adapters; None for a method that trains nothing.
        learning_rate_range: learning rates that suit LoRA adapters; None when none are known.
    """

    name: str
    function: Callable[..., object]
    data: DataKind
    paper: str
    parameters: Mapping[str, Parameter]
    doc: str
    reward: str = ""
    reference: bool = False
    learning_rate: float | None = None
    learning_rate_range: Range | None = None

    def __post_init__(self) -> None:
        checked_name(self.name[:30], self.name)
        for what in ("paper", "reward"):
            checked_text(self.name, what, getattr(self, what))

    @property
    def ranges(self) -> dict[str, Range]:
        """The declared ranges: hyper-parameter → range, `learning_rate` first."""
        rate = {"learning_rate": self.learning_rate_range} if self.learning_rate_range else {}
        return rate | {name: item.range for name, item in self.parameters.items() if item.range is not None}

    @property
    def searched(self) -> dict[str, Range]:
        """The ranges that a suite's `tune` searches: all, but none of a method without training."""
        return {} if self.learning_rate is None else self.ranges

    @property
    def kind(self) -> Literal["reward", "policy"]:
        """What it yields: a reward model (scalar head) or a policy."""
        return "reward" if self.data == "scores" else "policy"

    @property
    def online(self) -> bool:
        """Whether it is trained on answers that it writes itself, against a reward."""
        return self.data == "rollouts"

    @property
    def rewarded(self) -> bool:
        """Whether its parameter `reward` names what judges the answers that it learns from, or picks among."""
        return self.data in ("rollouts", "candidates")

    @property
    def reward_fields(self) -> tuple[RewardField, ...]:
        """The fields of `Loss` that hold its own rewards; none of a method that is given its reward, or has no loss."""
        return ()

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions, beside torch and ours, whose versions its numbers depend on."""
        return ()

    @property
    def needs(self) -> str:
        """What it needs beside its data, in words."""
        return "reads reference log-probabilities" if self.reference else "reads no reference"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names that its docstring's `Args` describe."""
        return tuple(inspect.signature(self.function).parameters)

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return self.doc.strip().splitlines()[0] if self.doc.strip() else ""

    @property
    def descriptions(self) -> dict[str, str]:
        """What its docstring says of each argument: name → description, in one line."""
        return described(self.doc)

    @property
    def family(self) -> str:
        """What kind of method it is, in words, by what it learns from."""
        if self.data == "pairs":
            return f"Pairs, {'against' if self.reference else 'without'} a reference"
        return FAMILIES[self.data]

    @property
    def sections(self) -> tuple[str, ...]:
        """The headings that its docstring is to have."""
        return SECTIONS

    @property
    def without_loss(self) -> str:
        """Why it has no loss, in words; empty where it has one."""
        return ""

    @property
    def reference_in_words(self) -> str:
        """Whether it reads the reference log-probabilities that are computed once for all methods."""
        return "yes" if self.reference else "no"

    def remarks(self, parameters: Parameters, start: str = "the base") -> tuple[str, ...]:
        """What a reader of its numbers has to know beside its hyper-parameters.

        Args:
            parameters: all of its hyper-parameters.
            start: what it starts from, in words.
        """
        return ()

    def obstacle_here(self) -> str | None:
        """What keeps it from training on this machine, in words; None when nothing does."""
        return None

    def resolve(self, given: Parameters) -> dict[str, Value]:
        """All hyper-parameters: the given ones, checked, over the defaults.

        Raises:
            ValueError: for an unknown name, a wrong type or a value out of bounds.
        """
        for name in given:
            if name not in self.parameters:
                raise ValueError(f"{self.name} has no parameter {name!r}. {self._instead_of(name)}")
        return {
            name: parameter.parse(given[name]) if name in given else parameter.default
            for name, parameter in self.parameters.items()
        }

    def _instead_of(self, name: str) -> str:
        if RENAMED.get(name) in self.parameters:
            return f"It is called {RENAMED[name]} now."
        every = [] if self.learning_rate is None else ["learning_rate", *OWN_SETTINGS]
        every += START_SETTINGS if self.kind == "policy" else ["start_from"]
        return nearest(name, [*self.parameters, *every], what="parameter")


def documentation(function: Callable[..., object]) -> str:
    """A method's docstring, dedented.

    Raises:
        PluginError: when it has none.
    """
    doc = inspect.getdoc(function) or ""
    if not doc:
        raise PluginError(f"{function.__name__} has no docstring", fix="say its equation, arguments and source in one")
    return doc


def checked_rate(name: str, rate: float) -> float:
    """A default learning rate.

    Raises:
        PluginError: when it is no number above 0.
    """
    if not is_number(rate) or rate <= 0:
        raise PluginError(f"{name}: learning_rate={in_short(rate)}, expected a number > 0")
    return rate


def checked_rates(name: str, rate: float, between: tuple[float, float] | None) -> Range | None:
    """The range of learning rates around the default.

    Raises:
        PluginError: when it is none, or not around it.
    """
    if between is not None and not (isinstance(between, tuple | list) and len(between) == 2):
        raise PluginError(
            f"{name}: learning_rate_range={in_short(between)}, expected two numbers, such as (1e-6, 1e-4)"
        )
    rates = None if between is None else Range(*between)
    if rates is not None and (rates.low <= 0 or rate not in rates):
        raise PluginError(f"{name}: learning_rate_range={rates}, expected numbers > 0 around the default {rate:g}")
    return rates


def joined(
    name: str, own: Mapping[str, Parameter], shared: Mapping[str, Parameter], *, whose: str
) -> dict[str, Parameter]:
    """A method's own hyper-parameters, and those that it shares with its kind.

    Raises:
        PluginError: when one name stands in both.
    """
    if clash := own.keys() & shared.keys():
        raise PluginError(f"{name}: parameter {clash.pop()!r} is also one of {whose}", fix="rename it")
    return {**own, **shared}
