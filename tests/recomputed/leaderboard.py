"""`leaderboard` and `reward_leaderboard`: a row per method, of its checkpoints' metrics, claims and seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tests.recomputed.cells import method_leaves
from tests.recomputed.claims import claimed
from tests.recomputed.comparisons import Tested
from tests.recomputed.folder import Cell, Folder
from tests.recomputed.ledger import ABSOLUTE, Leaf, Ledger, Number, Path

OF_POLICIES = {
    "judge": "judge_reward_mean",
    "gold": "gold_accuracy",
    "win_rate_length_controlled": "win_rate_length_controlled",
    "words": "length_words",
    "unfinished": "unfinished_share",
    "kl": "kl",
}
OF_REWARDS = {
    "accuracy": "accuracy",
    "accuracy_gold": "accuracy_gold_choice",
    "accuracy_right_shorter": "accuracy_right_shorter",
    "ties": "tie_rate",
}
NONE = Number(None)


def enter(folder: Folder, compared: Sequence[Tested], ledger: Ledger) -> None:
    policies = _methods(folder, "policy", "base")
    if any(own[0].kind == "policy" for own in policies):
        ordered = _ordered(policies, ledger, ("gold_accuracy", "judge_reward_mean"), ("gold_accuracy", "judge_reward"))
        for place, (own, rank, by) in enumerate(ordered):
            path: Path = ("leaderboard", place)
            _who(folder, own, rank, by, ledger, path)
            ledger.add((*path, "kind"), own[0].kind)
            for name, metric in OF_POLICIES.items():
                _over(own, metric, ledger, (*path, name))
            _seconds(own, ledger, (*path, "seconds"))
            _win_rate(folder, own, ledger, (*path, "win_rate"))
            _marks(folder, own, compared, ledger, path)
    names = ("accuracy_gold_choice", "accuracy")
    for place, (own, rank, by) in enumerate(_ordered(_methods(folder, "reward"), ledger, names, names)):
        path = ("reward_leaderboard", place)
        _who(folder, own, rank, by, ledger, path)
        for name, metric in OF_REWARDS.items():
            _over(own, metric, ledger, (*path, name))
        _seconds(own, ledger, (*path, "seconds"))
        ledger.add((*path, "against_longer"), _beside_longer(own, ledger))


def _methods(folder: Folder, *kinds: str) -> list[list[Cell]]:
    """The finished cells of each method."""
    found: dict[str, list[Cell]] = {}
    for cell in folder.cells:
        if cell.done and cell.kind in kinds and cell.algorithm != "judge":
            found.setdefault(cell.method, []).append(cell)
    return list(found.values())


def _known(own: Sequence[Cell], metric: str, ledger: Ledger) -> list[tuple[Cell, float]]:
    found = []
    for cell in own:
        number = ledger.numbers["results", cell.place, "metrics", metric, "value"]
        if isinstance(number.value, float | int):
            found.append((cell, float(number.value)))
    return found


def _mean(own: Sequence[Cell], metric: str, ledger: Ledger) -> float | None:
    values = [value for _, value in _known(own, metric, ledger)]
    return float(np.mean(values)) if values else None


def _ordered(
    methods: Sequence[list[Cell]], ledger: Ledger, metrics: tuple[str, str], keys: tuple[str, str]
) -> list[tuple[list[Cell], int | None, str | None]]:
    """Each method with its rank and by what, best first; of ties, the higher judge first."""
    first = [_mean(own, metrics[0], ledger) for own in methods]
    use = 0 if all(value is not None for value in first) else 1
    values = first if use == 0 else [_mean(own, metrics[1], ledger) for own in methods]
    known = [value for value in values if value is not None]
    found: list[tuple[list[Cell], int | None, str | None]] = []
    for own, value in zip(methods, values, strict=True):
        rank = None if value is None else 1 + sum(other - value > 1e-8 for other in known)
        found.append((own, rank, None if rank is None else keys[use]))
    return sorted(
        found,
        key=lambda one: (
            one[1] is None,
            one[1] or 0,
            -(_mean(one[0], metrics[1], ledger) or 0.0) if keys[1] == "judge_reward" else 0.0,
        ),
    )


def _who(folder: Folder, own: Sequence[Cell], rank: int | None, by: str | None, ledger: Ledger, path: Path) -> None:
    method_leaves(ledger, (*path, "method"), own[0])
    ledger.add((*path, "label"), _label(folder, own[0]))
    for place, cell in enumerate(own):
        ledger.add((*path, "seeds", place), cell.seed)
    lost = [cell for cell in folder.cells if cell.method == own[0].method and not cell.done]
    ledger.add((*path, "unfinished_cells"), len(lost))
    ledger.add((*path, "rank"), rank)
    if by is None:
        ledger.add((*path, "ranked_by"), None)
    else:
        ledger.record((*path, "ranked_by"), {"name": by, "of": ""})


def _label(folder: Folder, cell: Cell) -> str:
    """The name with the parameters that differ among the methods of that name."""
    kind = {"reward"} if cell.kind == "reward" else {"policy", "base"}
    alike = [one for one in folder.cells if one.kind in kind and one.identity["name"] == cell.identity["name"]]
    own, parts = cell.identity["parameters"], []
    for name, value in own.items():
        if any(one.identity["parameters"].get(name, _ABSENT) != value for one in alike):
            shown = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
            shown = f"{value:g}" if isinstance(value, float) else shown
            short = _SHORT.get(name, name)
            parts.append(shown if name == "reward" else f"{short} {shown}")
    return " ".join([str(cell.identity["name"]), *([" · ".join(parts)] if parts else [])])


_ABSENT = object()
_SHORT = {"learning_rate": "lr", "batch_size": "batch", "kl_coef": "kl", "kl_weight": "kl", "start_from": "from"}


def _over(own: Sequence[Cell], metric: str, ledger: Ledger, path: Path) -> None:
    found = _known(own, metric, ledger)
    values = [value for _, value in found]
    # The checkpoints' own numbers may be off by as much as this, so their mean and spread may be too.
    at = [("results", cell.place, "metrics", metric, "value") for cell, _ in found]
    off = max((ledger.numbers[one].most - ledger.numbers[one].least for one in at), default=0.0) + ABSOLUTE
    ledger.add((*path, "mean"), float(np.mean(values)) if values else None, absolute=off)
    ledger.add((*path, "sd"), float(np.std(values, ddof=1)) if len(values) > 1 else None, absolute=off)
    ledger.add((*path, "n"), len(values))
    for name in ("low", "high"):
        alone = [ledger.numbers["results", cell.place, "metrics", metric, name] for cell, _ in found]
        ledger.numbers[*path, name] = alone[0] if len(alone) == 1 else NONE


def _seconds(own: Sequence[Cell], ledger: Ledger, path: Path) -> None:
    values = [cell.seconds for cell in own if cell.seconds is not None]
    ledger.add((*path, "mean"), math.fsum(values) / len(values) if values else None)
    ledger.add((*path, "sd"), float(np.std(values, ddof=1)) if len(values) > 1 else None)
    ledger.record(path, {"low": None, "high": None, "n": len(values)})


def _win_rate(folder: Folder, own: Sequence[Cell], ledger: Ledger, path: Path) -> None:
    """As among `policies.win_rates`, or of the one checkpoint."""
    names = ("value", "low", "high", "n", "wanted")
    base = folder.base
    if base is None or own[0].kind == "base":
        ledger.record(path, {"value": None, "low": None, "high": None, "n": 0, "wanted": None})
        return
    places = {place[2] for place in ledger.numbers if place[:2] == ("policies", "win_rates")}
    for place in places:
        at: Path = ("policies", "win_rates", place)
        ends = [ledger.numbers[*at, end, "text"].value for end in ("a", "b")]
        if ledger.numbers[*at, "level"].value == "method" and ends == [own[0].method, base.method]:
            for name in names:
                ledger.numbers[*path, name] = ledger.numbers[*at, "rate", name]
            return
    if len(own) == 1:
        for name in names:
            ledger.numbers[*path, name] = ledger.numbers["results", own[0].place, "metrics", "win_rate_vs_base", name]
    else:
        ledger.record(path, {"value": _mean(own, "win_rate_vs_base", ledger), "low": None, "high": None})
        ledger.record(path, {"n": 0, "wanted": None})


def _marks(folder: Folder, own: Sequence[Cell], compared: Sequence[Tested], ledger: Ledger, path: Path) -> None:
    """On what the method, or else each of its checkpoints, was shown to be above or below the base."""
    base, method = folder.base, own[0].method
    about = [
        one
        for one in claimed(compared)
        if one.a.kind != "reward" and base is not None and {one.a.method, one.b.method} == {method, base.method}
    ]
    of_method = any(one.level == "method" for one in about)
    ledger.add((*path, "level"), "method" if of_method else "checkpoint")
    for name, up, down in (("above_base", "higher", "lower"), ("below_base", "lower", "higher")):
        place = 0
        for metric in ("gold_accuracy", "judge_reward"):
            shown = [
                one
                for one in about
                if (one.measure, one.of) == (metric, "")
                and one.numbers["decision"] == (up if one.a.method == method else down)
            ]
            if shown and len(shown) == (1 if shown[0].level == "method" else len(own)):
                ledger.record((*path, name, place), {"name": metric, "of": ""})
                place += 1


def _beside_longer(own: Sequence[Cell], ledger: Ledger) -> Leaf:
    known = {}
    for place in {place[1] for place in ledger.numbers if place[0] == "against_longer"}:
        scorer = ledger.numbers["against_longer", place, "scorer"].value
        known[scorer] = ledger.numbers["against_longer", place, "decision"].value
    found = {known.get(cell.text, "undefined") for cell in own}
    if "undefined" in found:
        return None
    return next(iter(found)) if len(found) == 1 else "none"
