"""The log of performance: ratios and exact counts of committed results, each once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import history
import pytest

RESULTS = history.FILE.parent / "results"
SOURCES = sorted(path.name for path in RESULTS.glob("20*-*.json"))


def result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return found


def test_the_log_holds_every_committed_result_as_its_file_has_it() -> None:
    """But for what was counted when a row was written."""
    log = history.read()
    assert sorted({row["source"] for row in log}) == SOURCES
    for name in SOURCES:
        own = [{**row, "counts": None} for row in log if row["source"] == name]
        assert own == history.rows_of(result(name), name)


def test_ratios_are_those_of_the_repeats() -> None:
    (row,) = history.rows_of(result("2026-11-26-cpu-generation.json"), "2026-11-26-cpu-generation.json")
    sides = result("2026-11-26-cpu-generation.json")["parts"][0]["sides"]
    found = sorted(their / our for our, their in zip(sides["ours"]["seconds"], sides["trl"]["seconds"], strict=True))
    assert dict(row["times_faster"]["generation"]) == {
        "low": pytest.approx(found[0], abs=1e-3),
        "median": pytest.approx(found[2], abs=1e-3),
        "high": pytest.approx(found[4], abs=1e-3),
    }
    (part,) = row["parts"]
    assert part["tokens"] == sum(sides["ours"]["tokens"])
    assert part["peak_bytes"] == {side: facts["peak_bytes"] for side, facts in sides.items()}
    assert part["times_smaller"] == pytest.approx(sides["trl"]["peak_bytes"] / sides["ours"]["peak_bytes"], abs=1e-3)


def test_no_row_holds_seconds() -> None:
    """Of two machines, or of two hours on one, they cannot be compared."""
    assert "seconds" not in json.dumps(history.read())


def test_a_measured_commit_is_added_with_its_counts_and_once(tmp_path: Path) -> None:
    path, measured = tmp_path / "history.json", result("2026-11-26-cpu-generation.json")
    newer = {**measured, "environment": {**measured["environment"], "commit": "new"}}
    for day, content in (("2026-12-01", measured), ("2026-11-30", measured), ("2026-12-01", newer)):
        history.add(history.rows_of(content, f"{day}-cpu.json"), path)
    log = history.read(path)
    assert [(row["date"], row["commit"]) for row in log] == [("2026-11-30", "a29c64c205ab"), ("2026-12-01", "new")]
    assert log[0]["counts"] == json.loads(history.COUNTS.read_text(encoding="utf-8"))


def test_the_log_is_shown_and_takes_results_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(history, "FILE", tmp_path / "history.json")
    history.main([str(RESULTS / "2026-11-26-cpu.json")])
    history.main([])
    shown = capsys.readouterr().out
    assert shown.count("| 0b6ba5ab3a07 |") == 2
    assert history.read(tmp_path / "history.json")[0]["counts"] is None
