"""What methods rest on: what `start_from` and `reward` name, and in which order cells follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from align_bench.api import Recipe, Selection
from align_bench.errors import SuiteError, nearest
from align_bench.stages.models import Policy
from align_bench.suite.names import GOLD

if TYPE_CHECKING:
    from align_bench.api import Algorithm
    from align_bench.planning.cells import Cell
    from align_bench.planning.variants import Variant
    from align_bench.plugins.registry import Registry
    from align_bench.records import CellId, Scalar


SHOWN = 20  # points that a message names


@dataclass(frozen=True, slots=True)
class Start:
    """What a cell starts from.

    Attributes:
        policy: the model.
        cell: the cell of the suite that trains it; None for an adapter or a model that was given.
        given: how the suite names it.
        reference: what a method with a reference is held to.
    """

    policy: Policy
    cell: Cell | None
    given: str
    reference: Literal["start", "base"] = "start"

    @property
    def chain(self) -> tuple[str, ...]:
        """Where training began, and what has followed since."""
        return self.cell.chain if self.cell else (self.name,)

    @property
    def name(self) -> str:
        """A cell's name, or that of a folder without its parents'."""
        return self.given if self.cell else Path(self.given).name

    @property
    def settings(self) -> dict[str, Scalar]:
        """What the suite says of it."""
        start: dict[str, Scalar] = {"start_from": self.given}
        return start if self.reference == "start" else {**start, "reference_policy": self.reference}

    def remark(self, chain: Sequence[str]) -> str:
        """What a reader of the numbers of a cell with this start has to know.

        Args:
            chain: of the cell.
        """
        reference = "; its reference is the base" if self.reference == "base" else ""
        return f"starts from {self.name} ({' → '.join(chain)}){reference}"

    @property
    def held_to(self) -> Policy | None:
        """The reference, where it is the start; None where it is the base."""
        return self.policy if self.reference == "start" else None


class Starts:
    """What each cell of a suite starts from, and what it learns from or picks by.

    Args:
        named: all variants of the suite, under their names without seeds.
        registry: the methods.
        given: value of `start_from` → the adapter or the model that it names, of those that are no cells.

    Raises:
        SuiteError: a start cannot be started from, or is not in the suite in just one point; a reward is not in the
            suite; or a cell rests on itself through others.
    """

    def __init__(self, named: Mapping[CellId, Variant], registry: Registry, given: Mapping[str, Policy]) -> None:
        names = Names(named)
        self._after = {name: _cell_of(name, point, named, names, registry) for name, point in named.items()}
        self._rewards = {name: point.method for name, point in named.items() if _is_reward(point, registry)}
        self._depths = self._in_depth(named, registry)
        self._given = given

    def of(self, identity: CellId, point: Variant, cell_of: Callable[[CellId], Cell]) -> Start | None:
        """What a cell starts from; None where that is the untrained base.

        Args:
            identity: the cell.
            point: its variant.
            cell_of: from the id of what it starts from, which has the same seed, to that cell.
        """
        if point.start_from is None:
            return None
        earlier = self._after[identity.method]
        if earlier is None:
            return Start(self._given[point.start_from], None, point.start_from, point.reference_policy)
        cell = cell_of(replace(earlier, seed=identity.seed))
        assert cell.adapter is not None, "it trains a policy"
        return Start(Policy(cell.adapter.frozen, cell.adapter), cell, point.start_from, point.reference_policy)

    def reward(self, point: Variant) -> CellId | None:
        """The cell, without its seed, of the reward model that an online method or a selection names; None for `gold`.

        Args:
            point: the variant, whose `reward` is the name of a cell, or of a method, which stands for its first one.

        Raises:
            SuiteError: no reward model of the suite has that name.
        """
        wanted = str(point.parameters["reward"])
        if wanted == GOLD:
            return None
        exact = [name for name in self._rewards if str(name) == wanted]
        found = exact or [name for name, method in self._rewards.items() if method == wanted]
        if found:
            return found[0]
        raise SuiteError(
            f"methods: {point.method}: reward: {wanted!r} is not a reward model of this suite. "
            + nearest(wanted, {*self._rewards.values(), *map(str, self._rewards), GOLD}, what="reward"),
            fix=f"list a reward model {wanted} in methods, before or after {point.method}, or name one that is there",
        )

    def in_order(self, entries: Iterable[tuple[CellId, Variant, int]]) -> list[tuple[CellId, Variant, int]]:
        """Cells after what they rest on: starts before what starts from them, and reward models before what learns.

        Args:
            entries: cells with their variants and seeds.
        """
        return sorted(entries, key=lambda entry: self._depths[entry[0].method])

    def _in_depth(self, named: Mapping[CellId, Variant], registry: Registry) -> dict[CellId, int]:
        """Each cell without its seed → how many stand below it, at most, one on the other; refuses cycles."""
        depths: dict[CellId, int] = {}

        def depth(name: CellId, above: tuple[CellId, ...]) -> int:
            if name in above:
                raise _cycle([*above[above.index(name) :], name], named)
            if name not in depths:
                point = named[name]
                reward = self.reward(point) if registry[point.method].algorithm.rewarded else None
                below = [one for one in (self._after[name], reward) if one is not None]
                depths[name] = max((1 + depth(one, (*above, name)) for one in below), default=0)
            return depths[name]

        return {name: depth(name, ()) for name in named}


class Names:
    """What cells are called, for suites of many.

    Args:
        cells: all cells of a suite, without their seeds.
    """

    def __init__(self, cells: Iterable[CellId]) -> None:
        self.exact = {str(one): one for one in cells}
        self._points: dict[str, list[CellId]] = {}
        for one in self.exact.values():
            self._points.setdefault(one.name, []).append(one)

    def find(self, given: str, where: str) -> CellId | None:
        """The cell that a name stands for; None where no cell and no method has it.

        Args:
            given: the name, as the suite gives it.
            where: the key that gives it, for messages.

        Raises:
            SuiteError: it is a method's name, and the suite has several points of that method.
        """
        if given in self.exact:
            return self.exact[given]
        points = self._points.get(given, [])
        if len(points) > 1:
            more = [f"and {len(points) - SHOWN} more"] if len(points) > SHOWN else []
            raise SuiteError(
                f"{where}: {given} has {len(points)} points: {', '.join([*map(str, points[:SHOWN]), *more])}; expected "
                "one",
                fix=f"name one of them, such as '{points[0]}'",
            )
        return points[0] if points else None


def _cell_of(
    name: CellId, point: Variant, named: Mapping[CellId, Variant], names: Names, registry: Registry
) -> CellId | None:
    if point.start_from is None:
        return None
    where, algorithm = f"methods: {name}: start_from", registry[point.method].algorithm
    if point.reference_policy == "base" and (isinstance(algorithm, Recipe) or not algorithm.reference):
        why = "its trainer takes its own start as the reference" if isinstance(algorithm, Recipe) else algorithm.needs
        raise SuiteError(
            f"methods: {name}: reference_policy: got base, but {point.method} cannot be held to it: {why}",
            fix="delete reference_policy",
        )
    found = names.find(point.start_from, where)
    if found is None:
        return None
    if not _trains_a_policy(registry[named[found].method].algorithm):
        raise SuiteError(
            f"{where}: got {found}, which trains no policy; expected a method that does, or the folder of an adapter "
            "or a model",
            fix=_policies(named, registry),
        )
    return found


def _trains_a_policy(algorithm: Algorithm) -> bool:
    return algorithm.kind == "policy" and not isinstance(algorithm, Selection)


def _is_reward(point: Variant, registry: Registry) -> bool:
    return registry[point.method].algorithm.kind == "reward"


def _policies(named: Mapping[CellId, Variant], registry: Registry) -> str:
    known = [str(one) for one, point in named.items() if _trains_a_policy(registry[point.method].algorithm)]
    if not known:
        return "list a method that trains a policy, such as sft, and start from that"
    return f"the suite's policies are: {', '.join(known)}"


def _cycle(cycle: Sequence[CellId], named: Mapping[CellId, Variant]) -> SuiteError:
    """The error of cells that rest on each other: each on the next one, and the last one is the first."""
    started = next(name for name in cycle if named[name].start_from)
    return SuiteError(
        f"methods: start_from: {' → '.join(map(str, reversed(cycle)))} is a cycle: each starts from the one before, or "
        "has it as its reward",
        fix=f"let one of them start from the base: delete its start_from, such as that of {started}",
    )
