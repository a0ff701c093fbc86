"""What a set's fingerprint follows, and what it does not."""

import json
import os
import sys
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from align_bench.data import fingerprint as module
from align_bench.data.fingerprint import fingerprint
from align_bench.data.planted import BIASES
from align_bench.data.preferences import DataSource
from align_bench.errors import DataError
from align_bench.sources import module_digest

Write = Callable[..., DataSource]


@pytest.fixture
def jsonl(tmp_path: Path) -> Write:
    def write(*rows: dict[str, str], name: str = "data.jsonl") -> DataSource:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return DataSource(str(path))

    return write


def pair(prompt: str = "q", chosen: str = "good", rejected: str = "bad") -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_fingerprint_is_of_the_content_not_the_name(jsonl: Write) -> None:
    source = jsonl(pair(), name="a.jsonl")
    same, other = jsonl(pair(), name="b.jsonl"), jsonl(pair("Q"), name="c.jsonl")
    assert fingerprint(source) == fingerprint(source) == fingerprint(same)
    assert len(fingerprint(source)) == 64
    variants = [other, replace(source, rows=1), replace(source, columns={"gold": "prompt"})]
    assert len({fingerprint(each) for each in (source, *variants)}) == 4


def test_fingerprint_ignores_the_order_of_columns(jsonl: Write) -> None:
    source = jsonl(pair())
    one = replace(source, columns={"chosen": "chosen", "rejected": "rejected"})
    assert fingerprint(one) == fingerprint(replace(source, columns={"rejected": "rejected", "chosen": "chosen"}))


def test_fingerprint_of_the_embedded_set_is_of_what_makes_its_rows() -> None:
    source = DataSource("embedded/planted", split="val", rows=50)
    assert fingerprint(source) == fingerprint(source) == fingerprint(replace(source, bias=BIASES["default"]))
    changed = [
        replace(source, bias="none"),
        replace(source, rows=49),
        replace(source, skip=1),
        replace(source, prompts=(0.0, 0.5)),
        replace(source, split="train"),
    ]
    others = [fingerprint(each) for each in changed]
    assert len({fingerprint(source), fingerprint(source, seed=1), *others}) == 7


def test_fingerprint_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        fingerprint(DataSource(str(tmp_path / "a.parquet")))


@pytest.mark.parametrize(("sha", "same"), [("a" * 40, True), ("b" * 40, False)])
def test_fingerprint_of_hub_data_is_of_its_commit(monkeypatch: pytest.MonkeyPatch, sha: str, same: bool) -> None:
    class Api:
        def dataset_info(self, name: str, revision: str | None, timeout: float) -> types.SimpleNamespace:
            return types.SimpleNamespace(sha=sha)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(HfApi=Api))
    source = DataSource("owner/name", split="train")
    assert (fingerprint(source) == fingerprint(replace(source, revision="a" * 40))) is same
    assert fingerprint(source) != fingerprint(replace(source, split="test"))


def test_fingerprint_of_hub_data_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def dataset_info(self, name: str, revision: str | None, timeout: float) -> types.SimpleNamespace:
            raise ConnectionError

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(HfApi=Api))
    source = DataSource("owner/name", split="train", revision="v1")
    assert fingerprint(source) == fingerprint(source) != fingerprint(replace(source, revision="v2"))


def test_a_file_changed_in_place_has_another_fingerprint(jsonl: Write) -> None:
    """Size and time of modification may stay: an editor or a copy that keeps times leaves them so."""
    source = jsonl(pair(chosen="good"))
    before, stat = fingerprint(source), Path(source.path).stat()
    jsonl(pair(chosen="gold"))
    os.utime(source.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = Path(source.path).stat()
    assert (after.st_size, after.st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert fingerprint(source) != before


def test_a_big_file_is_remembered_only_while_it_stays_as_it_is(
    jsonl: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALIGN_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("align_bench.store.remembered.SMALLEST_BYTES", 0)
    monkeypatch.setattr("align_bench.store.remembered.SETTLED_SECONDS", -1.0)
    source = jsonl(pair(chosen="good"))
    before, stat = fingerprint(source), Path(source.path).stat()
    monkeypatch.setattr("align_bench.store.remembered.file_digest", lambda path: "read again")
    assert fingerprint(source) == before
    time.sleep(0.05)  # more than a tick of the file system's clock
    jsonl(pair(chosen="gold"))
    os.utime(source.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(source) != before


def test_files_are_hashed_by_the_digest_that_is_given(jsonl: Write) -> None:
    source, asked = jsonl(pair()), []

    def digest(path: Path) -> str:
        asked.append(str(path))
        return "0"

    assert fingerprint(source, digest=digest) != fingerprint(source)
    assert asked == [source.path]


@pytest.mark.parametrize("read", ["align_bench.data.preferences", "align_bench.data.planted"])
def test_the_source_of_what_reads_or_makes_the_rows_counts(monkeypatch: pytest.MonkeyPatch, read: str) -> None:
    source = DataSource("embedded/planted", split="val")
    before = fingerprint(source)
    monkeypatch.setattr(module, "module_digest", lambda name: "other" if name == read else module_digest(name))
    assert fingerprint(source) != before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DataSource("embedded/planted"), "no split was named"),
        (DataSource("embedded/planted", split="vla"), "Did you mean val"),
        (DataSource("embedded/planted", split="val", bias="huge"), "unknown bias 'huge'"),
        (DataSource("embedded/other", split="val"), "no such embedded set"),
    ],
)
def test_an_embedded_set_that_is_not_there_is_told(source: DataSource, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fingerprint(source)


def test_the_embedded_set_is_not_made_for_its_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise AssertionError("it makes rows")

    monkeypatch.setattr("align_bench.data.planted.draw_planted", refuse)
    assert len(fingerprint(DataSource("embedded/planted", split="train"))) == 64
