"""Rows beyond a limit lie in a temporary file: the same rows, of which a batch at a time is in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from align_bench.data import spilled
from align_bench.data.preferences import DataSource, read
from align_bench.data.spilled import Spilled
from align_bench.records import Message, Preference

TURNS = (Message("system", "Be brief."), Message("user", "a\nlone \ud800"))
ROWS = [
    Preference(
        place, TURNS, f"row {place}", None if place % 2 else "…", "7", ("7", "8"), 1, 0.1 + place / 3, True, 1e-9
    )
    for place in range(10)
]
ROWS.append(Preference(10, TURNS, None, "plain"))


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spilled, "IN_MEMORY_ROWS", 5)
    monkeypatch.setattr(spilled, "BATCH_ROWS", 3)


def test_few_rows_are_a_tuple() -> None:
    assert spilled.spilled(iter(ROWS[:5])) == tuple(ROWS[:5])
    assert spilled.spilled([]) == ()


def test_many_rows_come_back() -> None:
    rows = spilled.spilled(iter(ROWS))
    assert isinstance(rows, Spilled)
    assert len(rows) == 11
    assert list(rows) == ROWS
    assert [rows[place] for place in range(-11, 11)] == [*ROWS, *ROWS]
    for place in (slice(2, 7), slice(None, None, 4), slice(None, None, -1), slice(9, 99)):
        assert list(rows[place]) == ROWS[place]
    for beyond in (11, -12):
        with pytest.raises(IndexError, match="of 11"):
            rows[beyond]


def test_a_pass_reads_each_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, read_batches = spilled.spilled(iter(ROWS)), 0
    load = json.loads

    def counted(line: bytes) -> Any:
        nonlocal read_batches
        read_batches += 1
        return load(line)

    monkeypatch.setattr(json, "loads", counted)
    assert list(rows) == ROWS
    assert read_batches == 4
    assert [rows[place] for place in range(11)] == ROWS
    assert read_batches == 8


def test_a_set_that_is_read_is_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    source = DataSource("embedded/planted", split="train", rows=20, skip=3, prompts=(0.0, 0.7))
    found = read(source)
    assert isinstance(found.rows, Spilled)
    monkeypatch.setattr(spilled, "IN_MEMORY_ROWS", 1000)
    in_memory = read(source)
    assert isinstance(in_memory.rows, tuple)
    assert tuple(found.rows) == in_memory.rows
    assert found.counts == in_memory.counts
