"""A run that something happens to while it goes on: damage, memory that runs out, a disk that fills up."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from align_bench.errors import MissingResultError
from align_bench.models.micro_batches import even_passes, fitting, half_as_much, micro_batches
from align_bench.records import Update
from align_bench.report.schema import Report
from align_bench.runner import results
from align_bench.runner.run import Folders
from align_bench.stages.drift import Drift
from align_bench.stages.generate import Generate
from align_bench.store.keys import Address
from align_bench.store.store import Store
from tests.runner.test_run import Recorder, by_name, execute, numbers

WriteSuite = Callable[..., Path]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "runs", tmp_path / "reports")


@pytest.fixture(scope="module")
def calm(small_suite: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of a run that nothing happens to."""
    import yaml

    root = tmp_path_factory.mktemp("calm")
    path = root / "small.yaml"
    path.write_text(yaml.safe_dump({**small_suite, "judge": None, "methods": ["dpo"]}), encoding="utf-8")
    return execute(path, Folders(root / "runs", root / "reports"))


class Saboteur(Recorder):
    """Damages a kind of artefact as a stage begins."""

    def __init__(self, runs: Path, kind: str, before: str) -> None:
        super().__init__()
        self._runs, self._kind, self._before = runs, kind, before

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        if f"{cell}: {label}" == self._before and self._before not in self.stages:
            for folder in sorted((self._runs / self._kind).iterdir()):
                file = max((path for path in folder.iterdir() if path.name != "manifest.json"), key=os.path.getsize)
                file.write_bytes(file.read_bytes()[:-9])
        with super().stage(cell, label) as update:
            yield update


@pytest.mark.parametrize(
    ("kind", "before", "again"),
    [
        ("tokens", "dpo: reference log-probs", "train: tokens"),
        ("reference", "dpo: train", "dpo: reference log-probs"),
        ("adapter", "dpo: validation pairs", "dpo: train"),
        ("generations", "dpo: drift", "dpo: generate"),
    ],
)
def test_what_is_damaged_while_a_run_goes_on_is_made_anew_in_the_same_run(
    write_suite: WriteSuite,
    folders: Folders,
    calm: Report,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    before: str,
    again: str,
) -> None:
    monkeypatch.setattr(results, "MOST_LOADED", 1)  # what is still held in memory is not read again
    saboteur = Saboteur(folders.runs, kind, before)
    report = execute(write_suite(judge=None, methods=["dpo"]), folders, saboteur)
    assert by_name(report)["dpo"].status == "done"
    assert numbers(report) == numbers(calm)
    assert [line for line in saboteur.logged if "was damaged, and moved to" in line and "made again" in line]
    assert saboteur.stages.count(again) == 2
    assert list((folders.runs / "damaged").iterdir())


def test_tokens_found_damaged_at_the_start_are_made_anew(
    write_suite: WriteSuite, folders: Folders, calm: Report
) -> None:
    path = write_suite(judge=None, methods=["dpo"])
    execute(path, folders)
    for file in (folders.runs / "tokens").glob("*/*"):
        file.write_bytes(file.read_bytes()[:-1])
    (folders.reports / "small" / "report.json").unlink()
    assert numbers(execute(path, folders)) == numbers(calm)


def test_a_disk_that_damages_whatever_it_holds_ends_the_run_in_words(
    write_suite: WriteSuite, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = Store.is_damaged

    def damages(store: Store, address: Address) -> bool:
        if address.kind == "reference":
            for file in (store.folder / "reference").rglob("*.safetensors"):
                file.write_bytes(b"")
        return sound(store, address)

    monkeypatch.setattr(Store, "is_damaged", damages)
    with pytest.raises(MissingResultError, match=r"validation pairs: the stored result was damaged, and moved to"):
        execute(write_suite(judge=None, methods=["dpo"]), folders)


# -- memory ------------------------------------------------------------------------------------------------------------


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError("no room"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
]


@pytest.mark.parametrize(("error", "stage"), list(zip(OUT_OF_MEMORY, [Generate, Drift, Generate], strict=True)))
def test_memory_that_runs_out_is_tried_once_more_with_half(
    write_suite: WriteSuite,
    folders: Folders,
    calm: Report,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    stage: type[Generate | Drift],
) -> None:
    held: list[int] = []
    run: Any = stage.run

    def exhausted(self: Any, desk: Any, folder: Path) -> Any:
        held.append(fitting(64))
        if len(held) == 1:
            raise error
        return run(self, desk, folder)

    monkeypatch.setattr(stage, "run", exhausted)
    progress = Recorder()
    report = execute(write_suite(judge=None, methods=["dpo"]), folders, progress)
    assert held[:2] == [64, 32]
    assert set(held[2:]) <= {64}
    assert {result.status for result in report.results} == {"done"}
    assert [line for line in progress.logged if "out of memory" in line and "once more with half" in line]
    assert by_name(report)["dpo"].metrics.accuracy == by_name(calm)["dpo"].metrics.accuracy


def test_memory_that_runs_out_twice_is_a_failed_cell_with_its_cause(
    write_suite: WriteSuite, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_suite(judge=None, methods=["dpo", "simpo"])
    own = Drift.run

    def exhausted(self: Any, desk: Any, folder: Path) -> Any:
        if self.owner == "dpo":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return own(self, desk, folder)

    with monkeypatch.context() as patch:
        patch.setattr(Drift, "run", exhausted)
        found = by_name(execute(path, folders))
    assert found["simpo"].status == "done"
    assert found["dpo"].status == "failed"
    assert found["dpo"].reason == (
        "out of memory, with half the micro-batch too: CUDA out of memory. Tried to allocate 9 GiB"
    )
    assert by_name(execute(path, folders))["dpo"].status == "done", "the next run tries again"


def test_half_as_much_halves_passes_and_nothing_else() -> None:
    lengths = [100] * 12
    whole = micro_batches(range(12), lengths, max_tokens=800)
    with half_as_much():
        halves = micro_batches(range(12), lengths, max_tokens=800)
        with half_as_much():
            assert fitting(3) == 1
    assert [len(part) for part in whole] == [8, 4]
    assert [len(part) for part in halves] == [4, 4, 4]
    assert sorted(index for part in halves for index in part) == list(range(12))
    even = even_passes(range(12), lengths, max_tokens=600)
    with half_as_much():
        assert len(even_passes(range(12), lengths, max_tokens=600)) == 2 * len(even)
    assert fitting(3) == 3


# -- disks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["adapter", "generations", "report"])
def test_a_disk_that_fills_up_loses_nothing_and_the_next_run_goes_on(
    write_suite: WriteSuite, folders: Folders, calm: Report, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from align_bench.errors import StoreError
    from align_bench.store import files, store

    sync = files.sync_file

    def full(path: Path) -> None:
        name = str(path)
        if f".writing/{where}-" in name or (where == "report" and ".report.json." in name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        sync(path)

    path = write_suite(judge=None, methods=["dpo"])
    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_file", full)
        patch.setattr(store, "sync_file", full)
        if where == "report":
            with pytest.raises(StoreError, match=r"cannot be written: No space left on device\n.*disk is full"):
                execute(path, folders)
        else:
            result = by_name(execute(path, folders))["dpo"]
            assert result.status == "failed"
            assert f"{folders.runs} cannot be written: No space left on device; check who" in (result.reason or "")
    progress = Recorder()
    assert numbers(execute(path, folders, progress)) == numbers(calm)
    assert "train: tokens" not in progress.stages
