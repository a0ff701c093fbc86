"""A look at what a training spends its time on: a trace of a few of its steps, for a trace viewer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from align_bench.records import Update
from align_bench.runner.progress import Progress
from align_bench.store.files import make_folder

TRAIN = "train"  # what is shown while an adapter is trained
STEPS = 2  # traced, after one that warms up; each may be tens of megabytes


class Traced:
    """A `Progress` that also writes a trace of every training that it is shown.

    Attributes:
        written: the traces' files so far.
    """

    def __init__(self, progress: Progress, folder: Path) -> None:
        self._progress = progress
        self._folder = folder
        self.written: list[Path] = []

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        """As the wrapped `Progress` shows it; a training is traced, too."""
        with self._progress.stage(cell, label) as update:
            if label != TRAIN:
                yield update
                return
            steps = 0

            def write(profiler: profile) -> None:
                if steps > 1:  # else it would hold what comes after the only step
                    self._write(profiler, cell)

            with _profiler(write) as profiler:

                def stepped(done: int, total: int, note: str = "") -> None:
                    nonlocal steps
                    steps += 1
                    profiler.step()
                    update(done, total, note)

                yield stepped

    def log(self, text: str) -> None:
        """As the wrapped `Progress` shows it."""
        self._progress.log(text)

    def _write(self, profiler: profile, cell: str) -> None:
        path = self._folder / f"{cell}.json"
        make_folder(path.parent)
        profiler.export_chrome_trace(str(path))
        self.written.append(path)
        self.log(f"{cell}: trace in {path}; open it in ui.perfetto.dev or chrome://tracing")


def _profiler(write: Callable[[profile], None]) -> profile:
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    plan = schedule(wait=0, warmup=1, active=STEPS, repeat=1)
    return profile(activities=activities, schedule=plan, on_trace_ready=write)
