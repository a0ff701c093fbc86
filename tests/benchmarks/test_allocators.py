"""What keeping freed memory gains: both settings do the same work, and parts are added to those that are there."""

from __future__ import annotations

import json
from pathlib import Path

import allocators
import pytest


@pytest.mark.usefixtures("sides_are_copies")
def test_parts_are_measured_with_both_and_added(tmp_path: Path) -> None:
    small = ["--repeats", "1", "--scored-pairs", "2", "--out", str(tmp_path / "found")]
    allocators.main([*small, "--parts", "scoring"])
    first = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["parts"]
    assert [
        (part["side"], part["part"], {name: len(turns) for name, turns in part["turns"].items()}) for part in first
    ] == [("ours", "scoring", {allocators.STOCK: 1, allocators.KEPT: 1})]
    assert all(turn["seconds"] > 0 and turn["peak_bytes"] > 0 for turns in first[0]["turns"].values() for turn in turns)


def test_a_row_shows_both_and_the_ratio_turn_by_turn() -> None:
    stock = [{"seconds": 2.0, "faults": 900, "system_seconds": 0.5, "peak_bytes": 3e6}]
    kept = [{"seconds": 1.0, "faults": 5, "system_seconds": 0.25, "peak_bytes": 4e6}]
    part = {"side": "ours", "part": "dpo", "turns": {allocators.STOCK: stock, allocators.KEPT: kept}}
    expected = "| ours, dpo | 2.00 → 1.00 | 2.00 (2.00–2.00) | 900 → 5 | 0.50 → 0.25 | 3 → 4 |"
    assert allocators._row(part) == expected
