"""Runs with several worker processes: the results of one process, whatever becomes of a worker or of its parent."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml

from align_bench.errors import SuiteError
from align_bench.planning.graph import make_graph
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.records import Update
from align_bench.runner import execution as executions
from align_bench.runner.execution import Execution, executor_of, share_of
from align_bench.runner.results import Results
from align_bench.runner.run import stages_to_run
from align_bench.runner.walk import walk
from align_bench.stages.stage import Stage
from align_bench.store.keys import file_digest
from align_bench.store.store import MANIFEST, Store
from align_bench.suite.load import load_suite
from tests.commands import StartCommand
from tests.runner.test_run import Recorder, named_by_the_user

FAILS = '''
from align_bench.api import Loss, PairLogps, algorithm


@algorithm(paper="none", learning_rate=1e-3, reward="s")
def fails(logps: PairLogps) -> Loss:
    """A loss that cannot be computed of a model's own log-probabilities."""
    if not logps.chosen.is_leaf:
        raise ValueError("on purpose")
    return Loss(-logps.chosen, logps.chosen, logps.rejected)
'''


class Killer(Recorder):
    """Kills what makes a stage when this has come to its third message, once.

    Args:
        stage: the stage, `CELL: LABEL`.
        kill: kills what makes it, and says what that was.
    """

    def __init__(self, stage: str, kill: Callable[[], list[int]]) -> None:
        super().__init__()
        self._stage = stage
        self._kill = kill
        self.seen: list[int] = []
        self.killed: list[int] = []

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        def update(done: int, total: int, note: str = "") -> None:
            if f"{cell}: {label}" != self._stage:
                return
            self.seen.append(done)
            if len(self.seen) == 3 and not self.killed:
                assert done < total, "the stage is too short to be killed"
                self.killed = self._kill()

        with super().stage(cell, label):
            yield update


def kill_workers() -> list[int]:
    """Kill the workers of this process that train; their process ids."""
    found = [*filter(trains, psutil.Process().children(recursive=True))]
    for worker in found:
        worker.kill()
    return [worker.pid for worker in found]


def trains(process: psutil.Process) -> bool:
    """Whether a process holds the lock of an adapter."""
    return any(Path(file.path).name.startswith("adapter-") for file in process.open_files())


def written(folder: Path, small_suite: dict[str, Any], **changes: Any) -> Path:
    """The small suite with a method that fails beside it."""
    (folder / "algorithms").mkdir(parents=True)
    (folder / "algorithms" / "fails.py").write_text(FAILS, encoding="utf-8")
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**small_suite, "judge": None, **changes}), encoding="utf-8")
    return path


def walked(path: Path, folder: Path, progress: Recorder, execution: Execution) -> tuple[Results, list[Stage[object]]]:
    """The suite's stages, made as a run makes them."""
    suite = load_suite(str(path))
    prepared = prepare(suite, load_registry(extra=named_by_the_user(path)))
    results = Results(Store(folder))
    wanted = stages_to_run(make_graph(prepared, results))
    with executor_of(execution, prepared, results, progress) as executor:
        walk(wanted, results, executor, progress, lambda stage: None)
    return results, wanted


def test_killed_workers_leave_the_results_of_one_process(
    small_suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train = {"batch_size": 8, "max_length": 128, "epochs": 40, "checkpoint_minutes": 1e-3}
    path = written(tmp_path / "suite", small_suite, methods=["simpo", "fails"], train=train)
    alone, stages = walked(path, tmp_path / "one", Recorder(), Execution())
    killer = Killer("simpo: train", kill_workers)
    together, _ = walked(path, tmp_path / "two", killer, Execution(2))
    failed = {stage.owner for stage in stages if not together.has(stage)}
    assert failed == {"fails"}
    assert digests(together, stages) == digests(alone, stages)
    assert killer.killed
    assert killer.seen[3] > 1, "the training began anew instead of going on from its checkpoint"
    lost = [line for line in killer.logged if "its worker was lost (it was killed by SIGKILL)" in line]
    assert "simpo: train: its worker was lost" in "".join(lost)
    assert [line for line in killer.logged if line.startswith("simpo: done in")]
    assert [line for line in killer.logged if line.startswith("fails: train failed: the loss of fails raised")]
    again = {stage for stage in killer.stages if killer.stages.count(stage) > 1}
    assert again <= {line.partition(": its worker")[0] for line in lost}, "finished work was made again"
    assert {together.artefact(stage).cost.threads for stage in stages if stage.owner not in failed} == {1}
    assert multiprocessing.active_children() == []


def digests(results: Results, stages: Iterable[Stage[object]]) -> dict[str, str]:
    """Every file that was made; logs of trainings without the seconds that these took."""
    return {
        f"{stage.address}/{file.name}": untimed(file) if file.suffix == ".jsonl" else file_digest(file)
        for stage in stages
        if results.has(stage)
        for file in results.artefact(stage).folder.iterdir()
        if file.name != MANIFEST
    }


def untimed(log: Path) -> str:
    return re.sub(r'"seconds": [^,}]+', "", log.read_text(encoding="utf-8"))


def test_nothing_runs_on_after_an_interrupt(
    small_suite: dict[str, Any], tmp_path: Path, start_command: StartCommand
) -> None:
    long = {"batch_size": 8, "max_length": 128, "epochs": 9000}
    suite = written(tmp_path / "suite", small_suite, methods=["rm", "simpo"], train=long)
    log = tmp_path / "events.jsonl"
    run = start_command("run", str(suite), "--jobs", "2", "--json-log", str(log), cwd=tmp_path)
    eventually(lambda: {one["cell"] for one in events(log) if one["event"] == "progress"} >= {"rm", "simpo"})
    workers = run.workers()
    assert len(workers) >= 2
    for process in (psutil.Process(run.pid), *workers):  # as a terminal sends it: to the workers, too
        process.send_signal(signal.SIGINT)
    assert run.wait() == 128 + signal.SIGINT
    eventually(lambda: gone(workers))
    said = run.said
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("interrupted in ")]
    assert "rm: train, at " in line
    assert "simpo: train, at " in line
    assert f"go on where it stopped: align-bench run {suite} --jobs 2" in said
    assert {one["cell"] for one in events(log) if one["event"] == "ended" and one["failed"]} == {"rm", "simpo"}


PARENT = """
import sys
from pathlib import Path
from align_bench.runner.worker import Setup
from align_bench.runner.processes import Processes
if __name__ == "__main__":
    workers = Processes(1, Setup(Path("runs"), 1))
    workers.hire()
    print("hired", flush=True)
    while True:
        list(workers.hear())
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "hired\n"
        eventually(lambda: len(at_work(parent.pid)) == 1)
        workers = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    eventually(lambda: gone(workers))


def at_work(parent: int) -> list[psutil.Process]:
    """Workers that have come as far as to import torch."""
    children = psutil.Process(parent).children()
    return [child for child in children if any("libtorch" in file.path for file in child.memory_maps())]


def gone(processes: Iterable[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def events(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("jobs", "processes", "threads", "device", "free", "expected"),
    [
        ("auto", 1, "", "cpu", 10e9, (8, 1, ())),
        ("auto", 1, "", "cpu", 4e9, (4, 2, ())),
        ("auto", 1, "", "cpu", 0.5e9, (1, 8, ())),
        ("auto", 1, "3", "cpu", 10e9, (2, 3, ())),
        (3, 1, "", "cpu", 0.5e9, (3, 2, ())),
        (20, 1, "", "cpu", 10e9, (20, 1, ())),
        ("auto", 1, "", "cuda", 0.5e9, (3, 2, ("1", "3", "4"))),
        (4, 1, "", "cuda", 0.5e9, (4, 2, ("1", "3", "4"))),
        ("auto", 2, "", "cpu", 10e9, (4, 2, ())),
        ("auto", 2, "", "cpu", 4e9, (2, 4, ())),
        ("auto", 4, "1", "cpu", 10e9, (2, 1, ())),
        ("auto", 2, "", "cuda", 0.5e9, (1, 8, ("1,3",))),
        ("auto", 3, "", "cuda", 0.5e9, (1, 8, ("1,3,4",))),
        ("auto", 4, "", "cuda", 0.5e9, (1, 8, ("1,3,4",))),
    ],
)
def test_workers_share_cores_memory_and_gpus(
    jobs: Any,
    processes: int,
    threads: str,
    device: str,
    free: float,
    expected: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    monkeypatch.setattr(executions, "worker_bytes", lambda _: 1e9)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3,4")
    precision = SimpleNamespace(device=device)
    prepared: Any = SimpleNamespace(
        inputs=SimpleNamespace(frozen=SimpleNamespace(precision=precision)),
        suite=SimpleNamespace(train=SimpleNamespace(processes=processes)),
    )
    found = share_of(prepared, jobs)
    assert (found.workers, found.threads, found.devices) == expected


@pytest.mark.parametrize("jobs", [0, -1, True, 1.5, "many"])
def test_jobs_that_are_no_number_are_told(jobs: Any) -> None:
    with pytest.raises(SuiteError, match="expected a whole number from 1 to 1,024, or 'auto'"):
        Execution(jobs)
