"""What methods start from: which cell, adapter or model `start_from` means, and in which order cells follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from align_bench.api import Recipe, Selection
from align_bench.errors import SuiteError
from align_bench.stages.models import Policy

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
    """What each cell of a suite starts from.

    Args:
        named: all variants of the suite, under their names without seeds.
        registry: the methods.
        given: value of `start_from` → the adapter or the model that it names, of those that are no cells.

    Raises:
        SuiteError: see `started_after`.
    """

    def __init__(self, named: Mapping[CellId, Variant], registry: Registry, given: Mapping[str, Policy]) -> None:
        self._after = started_after(named, registry)
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

    def in_order(self, entries: Iterable[tuple[CellId, Variant, int]]) -> list[tuple[CellId, Variant, int]]:
        """Cells after what they rest on: starts before what starts from them, and reward models before what learns.

        Args:
            entries: cells with their variants and seeds.
        """

        def depth(name: CellId) -> int:
            earlier = self._after[name]
            return 0 if earlier is None else 1 + depth(earlier)

        return sorted(entries, key=lambda entry: (depth(entry[0].method), "reward" in entry[1].parameters))


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


def started_after(named: Mapping[CellId, Variant], registry: Registry) -> dict[CellId, CellId | None]:
    """Each cell without its seed → the one that it starts from; None for one that starts from no cell of the suite.

    Args:
        named: all variants of a suite, under their names.
        registry: the methods.

    Raises:
        SuiteError: a start cannot be started from, or the method cannot be started, or is not in the suite in just one
            point, or starts from itself through others.
    """
    names = Names(named)
    found = {name: _cell_of(name, point, named, names, registry) for name, point in named.items()}
    for name in found:
        _refuse_cycle(name, found)
    return found


def _cell_of(
    name: CellId, point: Variant, named: Mapping[CellId, Variant], names: Names, registry: Registry
) -> CellId | None:
    if point.start_from is None:
        return None
    where, algorithm = f"methods: {name}: start_from", registry[point.method].algorithm
    if not _trains_a_policy(algorithm):
        does = "trains a reward model" if algorithm.kind == "reward" else "picks among answers and trains nothing"
        raise SuiteError(
            f"{where}: got {point.start_from!r}, but {point.method} {does}; expected it of methods that train a policy",
            fix="delete start_from: reward models and selections stand on the base",
        )
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


def _policies(named: Mapping[CellId, Variant], registry: Registry) -> str:
    known = [str(one) for one, point in named.items() if _trains_a_policy(registry[point.method].algorithm)]
    return f"the suite's policies are: {', '.join(known)}"


def _refuse_cycle(name: CellId, after: Mapping[CellId, CellId | None]) -> None:
    path = [name]
    while (earlier := after[path[-1]]) is not None:
        if earlier in path:
            cycle = [*path[path.index(earlier) :], earlier]
            raise SuiteError(
                f"methods: start_from: {' → '.join(map(str, reversed(cycle)))} is a cycle: each starts from the one "
                "before",
                fix=f"let one of them start from the base: delete its start_from, such as that of {name}",
            )
        path.append(earlier)
