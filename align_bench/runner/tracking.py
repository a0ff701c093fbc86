"""Trackers: where a run also shows every step, its tables and its report, beside the user's other experiments.

A tracker changes no result and no key, since nothing that results depend on knows of it. One that fails fails no cell:
that is said once, and the run goes on without it. Of each run that a tracker holds, a note beside the tracker's own
files says how many steps it has, so that a training that goes on after a kill doubles none, and what was trained
without the tracker is added at the end.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from align_bench.records import LogStep, Scalar, unlogged
from align_bench.report.render.csv import FOLDER as TABLES
from align_bench.runner.tracker_kinds import KINDS, Kind, Table
from align_bench.stages.train import Trained
from align_bench.store.keys import content_key
from align_bench.store.labels import safe_label

if TYPE_CHECKING:
    from align_bench.planning.graph import Graph
    from align_bench.records import Json
    from align_bench.report.schema import Report
    from align_bench.runner.results import Results
    from align_bench.stages.stage import Stage

FOLDER = "trackers"  # below the runs folder
REPORT_RUN = "report"


@dataclass(frozen=True, slots=True)
class Tracking:
    """Which trackers a run has.

    Attributes:
        names: of trackers, see `KINDS`.
        suite: name of the suite: the project, or experiment, of all their runs.
        runs: the folder of what has been computed.
    """

    names: tuple[str, ...]
    suite: str
    runs: Path


@dataclass(frozen=True, slots=True)
class _Note:
    """What a tracker already has of one of its runs.

    Attributes:
        steps: how many steps; for the report, 1 once it is there.
        run_id: the tracker's own name of the run, where it gives one.
    """

    steps: int = 0
    run_id: str | None = None


class Trackers:
    """The trackers of a run, as one process uses them: one training at a time.

    Attributes:
        tracking: which they are.
    """

    def __init__(self, tracking: Tracking, say: Callable[[str], None]) -> None:
        """Nothing is opened yet.

        Args:
            tracking: which.
            say: takes the line on a tracker that fails.
        """
        self.tracking = tracking
        folder = tracking.runs.resolve() / FOLDER
        self._kinds = [KINDS[name](folder / name, tracking.suite) for name in tracking.names]
        self._say = say
        self._failed: set[str] = set()
        self._said: set[str] = set()

    @contextmanager
    def steps(self, stage: Stage[object]) -> Iterator[LogStep]:
        """What takes the entry of each step of a training; of any other stage, what takes nothing."""
        if not isinstance(stage, Trained):
            yield unlogged
            return
        with self._opened(stage.owner, stage.address.key, _settings(stage)) as runs:

            def log(entry: Mapping[str, float]) -> None:
                step = int(entry["step"])
                values = {name: value for name, value in entry.items() if name != "step"}
                for run in runs:
                    self._try(run.kind, partial(run.log, values, step))

            yield log

    def complete(self, graph: Graph, results: Results, report: Report, folder: Path) -> None:
        """Add what a tracker does not have yet: steps of trainings that it did not see, and the report.

        Args:
            graph, results: the suite, and what is stored of it.
            report: its report.
            folder: where this is written.
        """
        self._failed.clear()  # a server may be back
        trained = [cell.adapter for cell in (*graph.trials, *graph.shown) if isinstance(cell.adapter, Trained)]
        for stage in dict.fromkeys(trained):
            steps = (results.facts(stage) or {}).get("steps")
            if isinstance(steps, int) and self._lack(stage.address.key, steps):
                with self.steps(stage) as log:
                    for entry in results.load(stage):
                        log(entry)
        key = content_key([report.suite.state, REPORT_RUN])
        if not self._lack(key, 1):
            return
        tables = list(_tables(folder / TABLES))
        with self._opened(REPORT_RUN, key, {"suite": report.suite.name, "command": report.command}) as runs:
            for run in runs:
                self._try(run.kind, partial(run.report, folder, tables))

    def _lack(self, key: str, steps: int) -> bool:
        return any(_noted(_note_file(kind, key)).steps < steps for kind in self._kinds)

    @contextmanager
    def _opened(self, name: str, key: str, settings: Mapping[str, Scalar]) -> Iterator[list[_Run]]:
        runs = [_Run(kind, name, key, settings) for kind in self._kinds]
        try:
            yield runs
        finally:
            for run in runs:
                self._try(run.kind, run.close)

    def _try(self, kind: Kind, act: Callable[[], None]) -> None:
        """Whatever goes wrong in a tracker is said once; from then on it is left alone."""
        if kind.name in self._failed:
            return
        try:
            act()
        except Exception as error:
            self._failed.add(kind.name)
            text = " ".join(str(error).split())[:300]
            line = f"--track {kind.name}: it failed, and the run goes on without it ({type(error).__name__}: {text})"
            if line not in self._said:
                self._said.add(line)
                self._say(line)


class _Run:
    """One run of one tracker. It is opened with the first thing that the tracker does not have yet."""

    def __init__(self, kind: Kind, name: str, key: str, settings: Mapping[str, Scalar]) -> None:
        self.kind = kind
        self._name = name
        self._key = key
        self._settings = settings
        self._file = _note_file(kind, key)
        self._note = _noted(self._file)
        self._tracker: Any = None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log a step, unless the tracker has it."""
        if step <= self._note.steps:
            return
        with _quiet(self.kind):
            self._open().log(values, step=step)
        self._write(replace(self._note, steps=step))

    def report(self, folder: Path, tables: Sequence[Table]) -> None:
        """Log a report, unless the tracker has it."""
        if self._note.steps:
            return
        with _quiet(self.kind):
            self.kind.report(self._open(), folder, tables)
        self._write(replace(self._note, steps=1))

    def close(self) -> None:
        """End the run, if it was opened."""
        if self._tracker is None:
            return
        tracker, self._tracker = self._tracker, None
        with _quiet(self.kind):
            tracker.finish()

    def _open(self) -> Any:
        if self._tracker is not None:
            return self._tracker
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # accelerate's loggers want it, and where nothing is trained nothing else makes it
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.kind.folder / ".lock"):  # one process makes a tracker's database, the others find it
            options = self.kind.options(self._name, self._key, self._note.run_id)
            tracker = LOGGER_TYPE_TO_CLASS[self.kind.name](**options)
            if hasattr(tracker, "start"):  # older releases of accelerate start when they are made
                tracker.start()
            self._tracker = tracker
            if not self._file.is_file():
                self.kind.configure(tracker, self._settings)
                self._write(_Note(run_id=self.kind.run_id(tracker)))
        return tracker

    def _write(self, note: _Note) -> None:
        self._note = note
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(note)), encoding="utf-8")
        temporary.replace(self._file)


@contextmanager
def _quiet(kind: Kind) -> Iterator[None]:
    """What a tracker prints is not shown, and its variables hold where the user has not set them."""
    added = {name: value for name, value in kind.environment.items() if name not in os.environ}
    os.environ.update(added)
    try:
        with redirect_stdout(io.StringIO()):  # stdout may be piped as JSON
            yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _note_file(kind: Kind, key: str) -> Path:
    """Of a run with this key, at the place where the tracker sends it now."""
    elsewhere = f"-{content_key(kind.destination)}" if kind.destination else ""
    return kind.folder / "logged" / f"{safe_label(kind.suite)}-{key}{elsewhere}.json"


def _noted(file: Path) -> _Note:
    """What the note says; a note that cannot be read says nothing."""
    try:
        return _Note(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return _Note()


def _settings(stage: Trained) -> dict[str, Scalar]:
    """What a training was asked for; nothing of the environment."""
    found: dict[str, Json] = {
        "cell": stage.owner,
        "method": stage.plugin.algorithm.name,
        "seed": stage.seed,
        "learning_rate": stage.learning_rate,
        "base": stage.frozen.base.name,
        "precision": str(stage.frozen.precision),
        "key": stage.address.key,
    }
    parts: dict[str, Mapping[str, Json]] = {
        "parameters": dict(stage.parameters),
        "lora": stage.lora.model_dump(mode="json"),
        "train": {**stage.settings.model_dump(mode="json"), "processes": stage.processes},
    }
    found |= {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
    return {
        name: value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in found.items()
    }


def _tables(folder: Path) -> Iterator[Table]:
    """The tables of a report's folder, headings that repeat numbered."""
    for file in sorted(folder.glob("*.csv")):
        with file.open(encoding="utf-8", newline="") as stream:
            headings, *rows = csv.reader(stream)
        numbered = [
            f"{heading} {headings[:place].count(heading) + 1}" if heading in headings[:place] else heading
            for place, heading in enumerate(headings)
        ]
        yield Table(file.stem, numbered, rows)
