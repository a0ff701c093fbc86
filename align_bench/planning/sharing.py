"""Which trainings of a suite several processes share, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from align_bench.planning.graph import Graph


def shared_trainings(graph: Graph) -> list[str]:
    """A line where the suite asks for several processes (`train.processes`): which methods use them; else nothing."""
    found = [cell.adapter for cell in (*graph.trials, *graph.judges, *graph.cells) if cell.adapter is not None]
    wanted = max((stage.settings.processes for stage in found), default=1)
    if wanted == 1:
        return []
    together = _names(stage.plugin.algorithm.name for stage in found if stage.processes > 1)
    alone = _names(stage.plugin.algorithm.name for stage in found if stage.processes == 1)
    reason = "methods that write answers and trainers of other libraries share nothing"
    by_one = f"{alone} in one process: {reason}" if alone else ""
    by_all = f"{together} in {wanted} processes that share each batch" if together else ""
    lines = [f"train.processes: trains {' and '.join(filter(None, (by_all, by_one)))}"]
    smallest = min((stage.settings.batch_size for stage in found if stage.processes > 1), default=wanted)
    if smallest < wanted:
        lines.append(f"train.processes: {wanted - smallest} of {wanted} have nothing to do in a batch of {smallest}")
    return lines


def _names(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
