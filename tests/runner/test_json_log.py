"""A run's events, as another program reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align_bench.errors import StoreError
from align_bench.runner.json_log import JsonLog
from tests.runner.test_run import Recorder


def events(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_stages_and_lines_are_events_and_are_shown_as_before(tmp_path: Path) -> None:
    shown = Recorder()
    log = JsonLog(shown, tmp_path / "events.jsonl")
    with log.stage("dpo#0", "train") as update:
        for step in range(1, 4):
            update(step, 3, f"loss {step}")
    log.log("dpo#0: done")
    with pytest.raises(KeyboardInterrupt), log.stage("kto#0", "train"):
        raise KeyboardInterrupt
    found = events(tmp_path / "events.jsonl")
    assert [(one["event"], one.get("stage")) for one in found] == [
        ("started", "train"),
        ("progress", "train"),  # the first, and the last; between them no second has passed
        ("progress", "train"),
        ("ended", "train"),
        ("log", None),
        ("started", "train"),
        ("ended", "train"),
    ]
    assert [one["failed"] for one in found if one["event"] == "ended"] == [False, True]
    assert {key: found[2][key] for key in ("cell", "done", "total", "note")} == {
        "cell": "dpo#0",
        "done": 3,
        "total": 3,
        "note": "loss 3",
    }
    assert all(isinstance(one["time"], float) for one in found)
    assert (shown.stages, shown.logged) == (["dpo#0: train", "kto#0: train"], ["dpo#0: done"])


def test_a_file_that_cannot_be_written_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        JsonLog(Recorder(), tmp_path / "missing" / "events.jsonl")
