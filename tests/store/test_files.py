"""Files are replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from align_bench.errors import StoreError
from align_bench.store.files import as_store_error, make_folder, replacing, sync_folder, write_atomically


@pytest.mark.parametrize(("content", "expected"), [("new ü\n", "new ü\n".encode()), (b"\xff\0", b"\xff\0")])
def test_file_is_replaced_whole(tmp_path: Path, content: str | bytes, expected: bytes) -> None:
    path = tmp_path / "report.json"
    write_atomically(path, "old ü")
    write_atomically(path, content)
    assert path.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [path]


def test_file_stays_when_the_new_text_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "half a surrogate \ud800")
    assert path.read_text(encoding="utf-8") == "old"


def test_file_stays_when_its_writer_fails(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_atomically(path, "old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        write()
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_refusal_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "below.json"
    with (
        pytest.raises(StoreError, match=r"below\.json cannot be written: Not a directory\n  → check who owns"),
        as_store_error(path),
    ):
        write_atomically(path, "x")


def test_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment of the rename the old file is untouched, and the new one complete and forced to disk."""
    path = tmp_path / "report.json"
    write_atomically(path, "old")
    seen: list[object] = []
    replace, fsync = Path.replace, os.fsync

    def spied(self: Path, target: Path) -> Path:
        seen.append((path.read_text(encoding="utf-8"), self.read_text(encoding="utf-8")))
        return replace(self, target)

    def forced(descriptor: int) -> None:
        seen.append("forced")
        fsync(descriptor)

    monkeypatch.setattr(Path, "replace", spied)
    monkeypatch.setattr(os, "fsync", forced)
    write_atomically(path, "new")
    assert seen == ["forced", ("old", "new")]


@pytest.mark.parametrize("name", ["a" * 255, "𝔞" * 63])
def test_longest_name_can_be_written(tmp_path: Path, name: str) -> None:
    write_atomically(tmp_path / name, "x")
    assert (tmp_path / name).read_text() == "x"


def test_folder_is_not_synced_where_it_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(os, "open", lambda *given: opened.append(given))
    monkeypatch.setattr(os, "name", "nt")
    sync_folder(tmp_path)
    assert not opened


def test_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        make_folder(tmp_path / "file" / "below")
