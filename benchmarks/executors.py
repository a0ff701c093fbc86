"""What executors cost beside the work that they have done: cells one by one, in worker processes, on a Ray cluster.

Each cell is a training of the embedded model with a seed of its own. Workers are warm: each has made a cell before the
clock starts. Overhead is the time of all workers beyond the seconds that the cells themselves took. What the file holds
of other executors stays in it, so that each can be measured by a command of its own.

Example:
    python benchmarks/executors.py --cells 200 --seconds 5 --executors workers,ray --out benchmarks/results/executors
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from align_bench.planning.graph import make_graph
from align_bench.planning.inputs import Prepared, prepare
from align_bench.plugins.registry import load_registry
from align_bench.runner.execution import Execution, executor_of
from align_bench.runner.executor import Ended, Executor
from align_bench.runner.progress import NoProgress
from align_bench.runner.results import Results
from align_bench.runner.walk import walk
from align_bench.stages.stage import Stage
from align_bench.store.files import write_atomically
from align_bench.store.store import Store
from align_bench.suite.load import load_suite

FIRST_EPOCHS = 20  # of the cell that the others are sized by
WARM_CELLS = 3  # per worker, before the clock starts: a worker that starts late makes one of them, too
MOST_OVERHEAD = 0.10


@dataclass(frozen=True)
class Measured:
    """One executor's time.

    Attributes:
        executor: its name.
        workers: how many made cells at a time.
        cells: how many were made.
        shortest_seconds: of a cell's own work.
        work_seconds: of all cells' own work, as their workers measured it.
        wall_seconds: from the first to the last.
        overhead: workers × wall seconds beyond the work, as a share of the work.
    """

    executor: str
    workers: int
    cells: int
    shortest_seconds: float
    work_seconds: float
    wall_seconds: float
    overhead: float


class Timed:
    """An `Executor` that notes how long each stage took."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.seconds: list[float] = []

    def start(self, ready: Sequence[Stage[object]]) -> Sequence[Stage[object]]:
        """As the one that it stands before."""
        return self._executor.start(ready)

    def wait(self) -> Ended | None:
        """As the one that it stands before."""
        ended = self._executor.wait()
        if ended is not None:
            assert ended.made, f"{ended.stage.owner} failed"
            self.seconds.append(ended.seconds)
        return ended

    def close(self) -> None:
        """As the one that it stands before."""
        self._executor.close()


def prepared(folder: Path, cells: int, epochs: int) -> Prepared:
    """A suite of so many cells, each trained for so many epochs."""
    suite: dict[str, Any] = {
        "name": "executors",
        "base": "embedded/tiny",
        "precision": "fp32",
        "data": {
            "train": {"path": "embedded/planted", "rows": 32},
            "val": {"path": "embedded/planted", "rows": 8},
        },
        "judge": "gold",
        "train": {"batch_size": 8, "max_length": 96, "epochs": epochs},
        "methods": ["simpo"],
        "seeds": list(range(cells)),
    }
    path = folder / "executors.yaml"
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")
    return prepare(load_suite(str(path)), load_registry())


def measure(name: str, execution: Execution, workers: int, cells: int, epochs: int) -> Measured:
    """Make the cells with an executor whose workers are warm."""
    warm = 1 if workers == 1 else WARM_CELLS * workers
    with tempfile.TemporaryDirectory() as temporary:
        found = prepared(Path(temporary), cells + warm, epochs)
        results, progress = Results(Store(Path(temporary) / "runs")), NoProgress()
        trainings = [cell.adapter for cell in make_graph(found, results).cells if cell.adapter is not None]
        with executor_of(execution, found, results, progress) as executor:
            walk(trainings[:warm], results, executor, progress, lambda stage: None)
            timed, began = Timed(executor), time.perf_counter()
            walk(trainings[warm:], results, timed, progress, lambda stage: None)
            wall = time.perf_counter() - began
    work = sum(timed.seconds)
    return Measured(name, workers, len(timed.seconds), min(timed.seconds), work, wall, workers * wall / work - 1)


def sized(seconds: float) -> int:
    """Epochs of a cell that takes so many seconds in this process: by a short cell, then by one of about that size."""
    epochs = FIRST_EPOCHS
    for _ in range(2):
        found = measure("", Execution(), 1, 1, epochs)
        epochs = max(1, math.ceil(epochs * seconds / found.shortest_seconds))
    return epochs


def page(measured: Sequence[Measured], machine: str) -> str:
    """The table."""
    lines = [
        "# What executors cost beside the work",
        "",
        f"Machine: {machine}. `python benchmarks/executors.py`, one thread per cell, workers warm.",
        "Overhead: the time of all workers beyond the seconds that the cells took themselves;",
        f"at most {MOST_OVERHEAD:.0%} is aimed at. It includes the end, when one worker has nothing left to do while",
        "another one still makes its last cell.",
        "",
        "| executor | workers | cells | shortest cell, s | work, s | wall, s | overhead |",
        "|:---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in measured:
        lines.append(
            f"| {one.executor} | {one.workers} | {one.cells} | {one.shortest_seconds:.1f} | {one.work_seconds:.1f} "
            f"| {one.wall_seconds:.1f} | {one.overhead:.1%} |"
        )
    return "\n".join(lines) + "\n"


def together(path: Path, measured: Sequence[Measured]) -> list[Measured]:
    """What a file holds of other executors, and what was measured now."""
    stored = json.loads(path.read_text(encoding="utf-8"))["executors"] if path.is_file() else []
    kept = [Measured(**one) for one in stored if one["executor"] not in {new.executor for new in measured}]
    return [*kept, *measured]


def main() -> None:
    """Measure, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0, help="least seconds of a cell")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--executors", default="one process,workers,ray")
    parser.add_argument("--machine", default="2 CPU cores, no AMX")
    parser.add_argument("--out", type=Path, help="where to write, without suffix")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    executions = {
        "one process": (Execution(), 1),
        "workers": (Execution(given.jobs), given.jobs),
        "ray": (Execution(given.jobs, executor="ray"), given.jobs),
    }
    epochs = sized(given.seconds)
    measured = []
    for name in given.executors.split(","):
        execution, workers = executions[name]
        measured.append(measure(name, execution, workers, given.cells, epochs))
        print(measured[-1], flush=True)
    print(page(measured, given.machine))
    if given.out is not None:
        found = together(given.out.with_suffix(".json"), measured)
        write_atomically(given.out.with_suffix(".md"), page(found, given.machine))
        record = {"machine": given.machine, "executors": [asdict(one) for one in found]}
        write_atomically(given.out.with_suffix(".json"), json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
