"""Tokens of a pass: what is measured, held to what a suite gets that says nothing of it."""

from __future__ import annotations

import json
from pathlib import Path

import pass_sizes
import pytest


def measure(monkeypatch: pytest.MonkeyPatch, out: Path, *more: str) -> None:
    command = ["pass_sizes.py", "--pairs", "4", "--rounds", "1", "--sizes", "128", "768", "1024", "--out", str(out)]
    monkeypatch.setattr("sys.argv", [*command, *more])
    pass_sizes.main()


def test_a_second_call_goes_on_and_other_settings_are_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "found"
    measure(monkeypatch, out)
    measure(monkeypatch, out, "--kinds", "scoring")
    measure(monkeypatch, out, "--kinds", "scoring", "--max-length", "300")
    whole, other = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert {kind: {size: len(turns) for size, turns in sizes.items()} for kind, sizes in whole["turns"].items()} == {
        "training": {"128": 1, "768": 1, "1024": 1},
        "scoring": {"128": 2, "768": 2, "1024": 2},
    }
    assert list(other["turns"]) == ["scoring"]
    (small,), (large,) = whole["turns"]["training"]["128"], whole["turns"]["training"]["1024"]
    assert small["passes"] > large["passes"] >= 1
    assert small["tokens"] == large["tokens"] > 0
    assert small["peak_bytes"] >= small["resting_bytes"] > 0


def test_a_size_is_held_to_the_default_round_by_round() -> None:
    """2 and 4 times as fast: their median is 3."""
    turns = [{"tokens": 100, "passes": 3, "seconds": s, "peak_bytes": 9e6, "resting_bytes": 4e6} for s in (1.0, 2.0)]
    default = [{"seconds": 2.0}, {"seconds": 8.0}]
    assert pass_sizes._row(2048, turns, default) == "| 2,048 | 3 | 75 | 3.00 (2.00–4.00) | 9 | 5 |"
    assert pass_sizes._row(2048, turns, None) == "| 2,048 | 3 | 75 | – | 9 | 5 |"
