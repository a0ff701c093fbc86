"""Rows are read once in a process, and never taken for those of a file that was changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from align_bench.data import preferences
from align_bench.data.fingerprint import fingerprint
from align_bench.data.preferences import DataSource
from align_bench.records import PreferenceSet
from align_bench.stages.rows import Rows


def write(path: Path, answer: str) -> None:
    path.write_text(json.dumps({"prompt": "q", "chosen": answer, "rejected": "bad"}) + "\n", encoding="utf-8")


def answer(rows: Rows) -> str | None:
    return rows.read().rows[0].chosen


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[], Rows]:
    """The rows of a file of the same name, as a plan names them."""
    source = DataSource(str(tmp_path / "rows.jsonl"))
    return lambda: Rows(source, fingerprint(source))


def test_rows_are_read_once(tmp_path: Path, rows: Callable[[], Rows], monkeypatch: pytest.MonkeyPatch) -> None:
    real, reads = preferences.read, list[DataSource]()

    def read(source: DataSource) -> PreferenceSet:
        reads.append(source)
        return real(source)

    monkeypatch.setattr(preferences, "read", read)
    write(tmp_path / "rows.jsonl", "once")
    assert [answer(rows()), answer(rows())] == ["once", "once"]
    assert len(reads) == 1


def test_a_file_that_was_changed_is_read_anew(tmp_path: Path, rows: Callable[[], Rows]) -> None:
    write(tmp_path / "rows.jsonl", "first")
    assert answer(rows()) == "first"
    write(tmp_path / "rows.jsonl", "second")
    assert answer(rows()) == "second"


def test_rows_that_are_not_those_of_the_fingerprint_are_not_kept(tmp_path: Path, rows: Callable[[], Rows]) -> None:
    write(tmp_path / "rows.jsonl", "kept")
    planned = rows()
    write(tmp_path / "rows.jsonl", "tried")
    assert answer(planned) == "tried"
    assert planned.changed()
    write(tmp_path / "rows.jsonl", "kept")  # put back
    assert not planned.changed()
    assert answer(planned) == "kept"
