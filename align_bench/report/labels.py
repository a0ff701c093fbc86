"""Short names of methods, which keep only what tells them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from align_bench.records import CellId, Scalar
from align_bench.suite.names import GOLD, JUDGE_CELL

# Parameters that stand in nearly every grid.
SHORT = {"learning_rate": "lr", "batch_size": "batch", "kl_coef": "kl", "kl_weight": "kl", "start_from": "from"}
BARE = ("reward",)  # their values are names, which need no other


def labels(cells: Iterable[CellId]) -> dict[CellId, str]:
    """Method → its label: `ppo kl 0.02 · poe_rm` of `ppo[kl_coef=0.02,reward=poe_rm]`, or `ppo` where it stands alone.

    A parameter that is the same for all methods of a name is left out. Where two labels would be the same, both are the
    full names.

    Args:
        cells: methods, or cells, whose seeds are ignored.
    """
    methods = list(dict.fromkeys(cell.method for cell in cells))
    found = {method: _label(method, _varying(method, methods)) for method in methods}
    count = Counter(found.values())
    return {method: label if count[label] == 1 else str(method) for method, label in found.items()}


def short_names(cells: Iterable[CellId]) -> dict[CellId, str]:
    """Cell → the label of its method, with its seed where it has one: `ppo kl 0.02#1`; the same of each method.

    Args:
        cells: those that are shown together.
    """
    every = list(dict.fromkeys(cells))
    short = labels(every)
    named = {cell: short[cell.method] + ("" if cell.seed is None else f"#{cell.seed}") for cell in every}
    return {**short, **named}


def of_method(name: str, cells: Iterable[CellId]) -> list[CellId]:
    """The cells of the methods that a name stands for: in full, as a label, or without parameters."""
    every = list(dict.fromkeys(cells))
    short = labels(every)
    return [cell for cell in every if name in (bare_name(cell), str(cell.method), short[cell.method])]


def called(name: str, cells: Iterable[CellId]) -> list[CellId]:
    """The cells that a name stands for: those of a method, or the one of that very name; none where nothing has it.

    Args:
        name: what a user typed, as tables print it.
        cells: those of a report or of a suite.
    """
    every = list(dict.fromkeys(cells))
    return of_method(name, every) or [cell for cell in every if name == str(cell)]


def full_name(name: str, cells: Iterable[CellId]) -> str:
    """The full name of the method that a label stands for, and any other name as it is given.

    A label is one among these cells only: with fewer of them, another one may stand for the same method.
    """
    every = list(dict.fromkeys(cells))
    methods = {cell.method for cell in of_method(name, every)}
    return str(methods.pop()) if len(methods) == 1 and name in labels(every).values() else name


def names_of(cells: Iterable[CellId]) -> list[str]:
    """All names that `called` knows, for a message."""
    every = list(dict.fromkeys(cells))
    short = labels(every)
    names = ((bare_name(cell), short[cell.method], str(cell.method), str(cell)) for cell in every)
    return list(dict.fromkeys(name for own in names for name in own))


def bare_name(cell: CellId) -> str:
    """Its method's name without parameters: `ppo`, or `run/ppo` where several runs are compared."""
    return str(CellId(cell.name, run=cell.run))


def _varying(method: CellId, methods: Iterable[CellId]) -> list[str]:
    """The parameters of which methods of the same name have different values, in this one's order."""
    others = [dict(one.parameters) for one in methods if (one.run, one.name) == (method.run, method.name)]
    return [
        name for name, value in method.parameters if any(name not in other or other[name] != value for other in others)
    ]


def _label(method: CellId, varying: Iterable[str]) -> str:
    own = dict(method.parameters)
    parts = " · ".join(_part(name, own[name]) for name in varying)
    return " ".join(_words(method, parts))


def _words(method: CellId, parts: str) -> Iterator[str]:
    yield bare_name(method)
    if parts:
        yield parts
    if method.trial is not None:
        yield f"trial {method.trial}"


def _part(name: str, value: Scalar) -> str:
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, bool):
        shown = "on" if value else "off"
    return shown if name in BARE else f"{SHORT.get(name, name)} {shown}"


def judge_in_words(name: str) -> str:
    """A judge's name where a method may have the same one: `judge rm`; `gold` is no method."""
    return name if name in (GOLD, JUDGE_CELL) else f"judge {name}"
