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
    by_one = f"{alone} in one, since only losses on given answers are shared" if alone else ""
    by_all = f"{together} in {wanted} processes that share each batch" if together else ""
    return [f"train.processes: trains {' and '.join(filter(None, (by_all, by_one)))}"]


def _names(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
