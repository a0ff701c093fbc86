"""`claims`: comparisons of methods, and of their checkpoints where seeds allow no other, the higher one first."""

from __future__ import annotations

from collections.abc import Sequence

from tests.recomputed.cells import cell_leaves, method_leaves
from tests.recomputed.comparisons import Tested
from tests.recomputed.folder import Cell, Folder
from tests.recomputed.ledger import Leaf, Ledger, Path

AS_COMPARED = ("p_holm", "p_tost_holm", "margin", "family", "n", "prompts")
OF_SEEDS = ("seed_share", "seed_noise", "seed_noise_declared")


def claimed(compared: Sequence[Tested]) -> list[Tested]:
    """The comparisons that are claims."""
    methods = {_about(one) for one in compared if one.level == "method"}
    return [one for one in compared if one.level == "method" or _about(one) not in methods]


def _about(one: Tested) -> tuple[str, str, frozenset[str]]:
    return one.measure, one.of, frozenset((one.a.method, one.b.method))


def enter(folder: Folder, compared: Sequence[Tested], ledger: Ledger) -> None:
    for place, one in enumerate(claimed(compared)):
        path: Path = ("claims", place)
        numbers, turned = one.numbers, one.numbers["decision"] == "lower"
        a, b = (one.b, one.a) if turned else (one.a, one.b)
        leaves_of = cell_leaves if one.level == "checkpoint" else method_leaves
        leaves_of(ledger, (*path, "a"), a)
        leaves_of(ledger, (*path, "b"), b)
        ledger.record((*path, "metric"), {"name": one.measure, "of": one.of})
        kind = "reward" if one.a.kind == "reward" else "policy"
        ledger.record(path, {"level": one.level, "kind": kind, "unit": one.unit})
        ledger.add((*path, "decision"), "higher" if turned else numbers["decision"])
        for number, seed in enumerate(sorted(set(_seeds(folder, one)))):
            ledger.add((*path, "seeds", number), seed)
        for name in (*AS_COMPARED, *OF_SEEDS):
            ledger.add((*path, name), numbers[name], absolute=0.0 if name.startswith("p_") else 1e-9)
        ledger.add((*path, "difference"), _turned(numbers["difference"]) if turned else numbers["difference"])
        for low, high in (("low", "high"), ("method_low", "method_high")):
            _bounds(one, low, high, turned, ledger, path)


def _bounds(one: Tested, low: str, high: str, turned: bool, ledger: Ledger, path: Path) -> None:
    ranges: list[tuple[float, float] | None] = [None, None]
    if one.drawn is not None and low in one.drawn_bounds:
        ranges = [one.drawn.low_range, one.drawn.high_range]
    values = [one.numbers[low], one.numbers[high]]
    if turned:
        values = [_turned(value) for value in reversed(values)]
        ranges = [None if own is None else (-own[1], -own[0]) for own in reversed(ranges)]
    for name, value, within in zip((low, high), values, ranges, strict=True):
        ledger.add((*path, name), value, within)


def _turned(value: Leaf) -> Leaf:
    assert value is None or isinstance(value, float)
    return None if value is None else -value


def _seeds(folder: Folder, one: Tested) -> list[int]:
    """Of the trained checkpoints behind it."""

    def behind(cell: Cell) -> bool:
        ends = (one.a, one.b)
        if one.level == "checkpoint":
            return cell.place in [end.place for end in ends]
        return cell.method in [end.method for end in ends]

    return [cell.seed for cell in folder.cells if cell.done and cell.kind != "base" and behind(cell)]
