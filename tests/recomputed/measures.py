"""What cells are compared on: each measure's values by unit (a pair, or a prompt)."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tests.recomputed.arithmetic import Column, right
from tests.recomputed.folder import Cell, Folder, Row, finite
from tests.recomputed.results import by_gold, log_ratio, logp_mean, right_shorter

Values = Mapping[Hashable, float]


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name, of: as in `report.json`.
        kind: whether of reward models, or of policies and the base.
        unit: of its values.
        values: a finished cell and its values; the base last.
        prompts: unit → prompt.
        binary: right, wrong or a tie.
    """

    name: str
    of: str
    kind: str
    unit: str
    values: Sequence[tuple[Cell, Values]]
    prompts: Mapping[Hashable, Hashable]
    binary: bool

    def prompt(self, unit: Hashable) -> Hashable:
        return self.prompts.get(unit, unit)

    @property
    def methods(self) -> dict[str, list[tuple[Cell, Values]]]:
        found: dict[str, list[tuple[Cell, Values]]] = {}
        for cell, values in self.values:
            found.setdefault(cell.method, []).append((cell, values))
        return found


def common(values: Sequence[Values]) -> list[Hashable]:
    """The units that all have."""
    return [unit for unit in values[0] if all(unit in other for other in values)]


def table(values: Sequence[Values], units: Sequence[Hashable]) -> Column:
    """A row for each cell, a column for each unit."""
    return np.array([[own[unit] for unit in units] for own in values], dtype=np.float64).reshape(len(values), -1)


def measures(folder: Folder) -> list[Measure]:
    rewards = [cell for cell in folder.finished if cell.kind == "reward" and cell.algorithm != "judge"]
    policies = [cell for cell in folder.finished if cell.kind != "reward"]
    prompts = folder.pair_prompts
    main = folder.judges[0] if folder.judges else None
    found = [
        _measure("accuracy", "", "reward", "share", rewards, [_right(cell) for cell in rewards], prompts, True),
        *(
            _measure(name, "", "policy", "share", cells, [_right(cell, of) for cell in cells], prompts, True)
            for name, of, cells in (
                ("accuracy_logratio", log_ratio, [cell for cell in policies if cell.kind == "policy"]),
                ("accuracy_logp_mean", logp_mean, policies),
            )
        ),
        _measure(
            "accuracy_right_shorter",
            "",
            "reward",
            "share",
            rewards,
            [_shorter(cell) for cell in rewards],
            prompts,
            True,
        ),
    ]
    for judge in folder.judges:
        scores = [cell.by_prompt(judge) for cell in policies]
        of = "" if judge == main else judge
        found.append(_measure("judge_reward", of, "policy", "reward", policies, scores, {}, False))
    for name in folder.proxies:
        scores = [cell.by_prompt(name, "proxies") for cell in policies]
        found.append(_measure("proxy_reward", name, "policy", "reward", policies, scores, {}, False))
    binary = all(cell.one_sample for cell in policies)
    scores = [cell.by_prompt("gold") for cell in policies]
    found.append(_measure("gold_accuracy", "", "policy", "share", policies, scores, {}, binary))
    return found


def _measure(
    name: str,
    of: str,
    kind: str,
    unit: str,
    cells: Sequence[Cell],
    values: Sequence[Values],
    prompts: Mapping[Hashable, Hashable],
    binary: bool,
) -> Measure:
    known = [(cell, own) for cell, own in zip(cells, values, strict=True) if own]
    return Measure(name, of, kind, unit, known, prompts, binary)


def _reward(row: Row, side: str) -> float | None:
    found: float | None = row[f"{side}_reward"]
    return found


def _right(cell: Cell, of: Callable[[Row, str], float | None] = _reward) -> Values:
    values = [(row["pair"], of(row, "chosen"), of(row, "rejected")) for row in cell.scores]
    return {
        pair: float(right(np.array([chosen - rejected]))[0])
        for pair, chosen, rejected in values
        if chosen is not None and rejected is not None and math.isfinite(chosen) and math.isfinite(rejected)
    }


def _shorter(cell: Cell) -> Values:
    found = {}
    for row in cell.scores:
        ordered = by_gold(row)
        if ordered is not None and right_shorter(ordered):
            _, better, worse = ordered
            left, other = row[f"{better}_reward"], row[f"{worse}_reward"]
            if finite(left) and finite(other):
                found[row["pair"]] = float(right(np.array([left - other]))[0])
    return found
