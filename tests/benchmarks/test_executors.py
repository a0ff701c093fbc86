"""The benchmark of executors: what it counts as overhead, and that it runs."""

from __future__ import annotations

import executors

from align_bench.runner.execution import Execution


def test_one_process_has_next_to_no_overhead() -> None:
    found = executors.measure("one process", Execution(), 1, 2, 1)
    assert found.cells == 2
    assert 2 * found.shortest_seconds <= found.work_seconds <= found.wall_seconds
    assert found.overhead == found.wall_seconds / found.work_seconds - 1
    assert "| one process | 1 | 2 |" in executors.page([found], "a machine")
