"""The benchmark of executors: what it counts as overhead, and that it runs."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import executors

from align_bench.runner.execution import Execution


def test_one_process_has_next_to_no_overhead() -> None:
    found = executors.measure("one process", Execution(), 1, 2, 1)
    assert found.cells == 2
    assert 2 * found.shortest_seconds <= found.work_seconds <= found.wall_seconds
    assert found.overhead == found.wall_seconds / found.work_seconds - 1
    assert "| one process | 1 | 2 |" in executors.page([found], "a machine")


def test_what_was_measured_of_other_executors_stays(tmp_path: Path) -> None:
    path = tmp_path / "executors.json"
    one, ray = (executors.Measured(name, 1, 2, 5.0, 10.0, 11.0, 0.1) for name in ("one process", "ray"))
    assert executors.together(path, [ray]) == [ray]
    path.write_text(json.dumps({"executors": [asdict(one), asdict(ray)]}), encoding="utf-8")
    again = replace(ray, cells=200)
    assert executors.together(path, [again]) == [one, again]
