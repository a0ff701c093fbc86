"""Digests of big files: read once, and again whenever they may have changed."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from align_bench.store import remembered
from align_bench.store.keys import file_digest
from align_bench.store.remembered import SMALLEST_BYTES, Remembered, cache_folder

SIZE = 1000


@pytest.fixture
def memo(tmp_path: Path) -> Path:
    """Where it is remembered; no such file yet."""
    return tmp_path / "cache" / "digests.json"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of a thousand bytes."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"a" * SIZE)
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read; a thousand bytes count as many, and nothing waits for a clock."""
    read: list[Path] = []

    def spied(path: Path) -> str:
        read.append(path)
        return file_digest(path)

    monkeypatch.setattr(remembered, "file_digest", spied)
    monkeypatch.setattr(remembered, "SMALLEST_BYTES", SIZE)
    monkeypatch.setattr(remembered, "SETTLED_SECONDS", -1.0)
    return read


def expected(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_file_is_read_once(memo: Path, weights: Path, hashed: list[Path]) -> None:
    for _ in range(3):
        assert Remembered(memo).digest(weights) == expected(weights)
    assert hashed == [weights]
    assert [path.name for path in memo.parent.iterdir()] == [memo.name]


def test_change_in_place_of_equal_size_and_time_is_noticed(memo: Path, weights: Path, hashed: list[Path]) -> None:
    kept = Remembered(memo)
    before, status = kept.digest(weights), weights.stat()
    time.sleep(0.02)  # more than a tick of the clock that stamps files
    with weights.open("r+b") as stream:
        stream.write(b"b")
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    for one in (kept, Remembered(memo)):
        assert one.digest(weights) == expected(weights) != before


def test_other_file_under_the_same_name_is_noticed(memo: Path, weights: Path, hashed: list[Path]) -> None:
    before, status = Remembered(memo).digest(weights), weights.stat()
    other = weights.with_name("other")
    other.write_bytes(b"b" * SIZE)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(weights)
    assert Remembered(memo).digest(weights) == expected(weights) != before


def test_renamed_file_is_known(memo: Path, weights: Path, hashed: list[Path]) -> None:
    Remembered(memo).digest(weights)
    status = weights.stat()
    link = weights.with_name("linked")
    link.symlink_to(weights)  # as in a hub's cache
    assert weights.stat().st_ctime_ns == status.st_ctime_ns
    Remembered(memo).digest(link)
    assert hashed == [weights]


def test_fresh_file_is_not_remembered(
    memo: Path, weights: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "SETTLED_SECONDS", 2.0)
    Remembered(memo).digest(weights)
    Remembered(memo).digest(weights)
    assert hashed == [weights, weights]
    assert not memo.exists()
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + 3.0)
    Remembered(memo).digest(weights)
    Remembered(memo).digest(weights)
    assert len(hashed) == 3


def test_file_that_changes_while_it_is_read_is_not_remembered(
    memo: Path, weights: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def changing(path: Path) -> str:
        digest = file_digest(path)
        path.write_bytes(b"c" * (SIZE + 1))
        return digest

    monkeypatch.setattr(remembered, "file_digest", changing)
    Remembered(memo).digest(weights)
    assert not memo.exists()


def test_small_file_is_always_read(memo: Path, weights: Path, hashed: list[Path]) -> None:
    weights.write_bytes(b"a" * (SIZE - 1))
    for _ in range(2):
        assert Remembered(memo).digest(weights) == expected(weights)
    assert hashed == [weights, weights]
    assert SMALLEST_BYTES == 16 * 1024**2


def test_folder_that_cannot_be_written_is_passed_over(tmp_path: Path, weights: Path, hashed: list[Path]) -> None:
    (tmp_path / "file").touch()
    kept = Remembered(tmp_path / "file" / "digests.json")
    assert kept.digest(weights) == expected(weights)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff", b'{"1": 2}'])
def test_damaged_memo_is_passed_over(memo: Path, weights: Path, hashed: list[Path], content: bytes) -> None:
    memo.parent.mkdir()
    memo.write_bytes(content)
    for _ in range(2):
        assert Remembered(memo).digest(weights) == expected(weights)
    assert hashed == [weights]


def test_what_another_process_remembers_stays(memo: Path, weights: Path, hashed: list[Path]) -> None:
    other = weights.with_name("other")
    other.write_bytes(b"b" * SIZE)
    one, two = Remembered(memo), Remembered(memo)
    one.digest(other)
    two.digest(weights)
    Remembered(memo).digest(other)
    assert hashed == [other, weights]


def test_oldest_are_dropped(memo: Path, weights: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_MOST", 1)
    other = weights.with_name("other")
    other.write_bytes(b"b" * SIZE)
    for path in (weights, other, other, weights):
        Remembered(memo).digest(path)
    assert hashed == [weights, other, weights]


@pytest.mark.parametrize(
    ("variables", "expected_folder"),
    [
        ({"ALIGN_BENCH_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/align-bench"),
        ({"HOME": "/c"}, "/c/.cache/align-bench"),
    ],
)
def test_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected_folder: str) -> None:
    for name in ("ALIGN_BENCH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected_folder)


def test_no_place_for_a_cache(monkeypatch: pytest.MonkeyPatch, weights: Path, hashed: list[Path]) -> None:
    monkeypatch.setattr(remembered, "cache_folder", lambda: None)
    kept = Remembered()
    assert kept.digest(weights) == kept.digest(weights) == expected(weights)
