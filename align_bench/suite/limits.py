"""How many cells a suite may ask for, counted before any of them is laid out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from align_bench.errors import SuiteError
from align_bench.suite.models import TrainedJudge

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from align_bench.suite.models import Suite

MOST_CELLS = 20_000  # ten thousand are laid out in seconds


def refuse_too_many_cells(suite: Suite, where: object) -> None:
    """Refuse a suite whose grids, seeds, trials and judges make more than `MOST_CELLS` cells.

    Args:
        suite: the whole suite, as it will be laid out.
        where: its file, for the message.

    Raises:
        SuiteError: with the count, and the part that makes the most cells.
    """
    parts = {f"methods: {method.name}": _points(method.grid) * len(suite.seeds) for method in suite.methods}
    if suite.tune is not None:
        for method in suite.methods:
            listed = (suite.tune.methods or {}).get(method.name)
            if suite.tune.methods is None or method.name in suite.tune.methods:
                trials = _points(listed) if listed else suite.tune.trials
                part = f"tune: {method.name}"
                parts[part] = parts.get(part, 0) + _points(method.grid) * trials
    for place, judge in enumerate(suite.judge):
        ensemble = judge.ensemble if isinstance(judge, TrainedJudge) else None
        parts[f"judge {place + 1}"] = ensemble.size if ensemble else 1
    total = sum(parts.values())
    if total > MOST_CELLS:
        most = max(parts, key=lambda part: parts[part])
        raise SuiteError(
            f"{where}: {most}: got {parts[most]:,} of {total:,} cells (settings × seeds, trials and judges), "
            f"expected at most {MOST_CELLS:,} in all",
            fix="give fewer values or seeds, or `tune: {trials: …}` in place of a grid",
        )


def _points(grid: Mapping[str, Collection[object]]) -> int:
    return math.prod(len(values) for values in grid.values())
