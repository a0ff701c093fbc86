"""A run as a stream of events for other programs: a JSON object per line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.store.files import as_store_error

if TYPE_CHECKING:
    from align_bench.records import Json, Update
    from align_bench.report.schema import Report
    from align_bench.runner.progress import Progress

EVERY_SECONDS = 1.0  # between two events of one stage's progress


class JsonLog:
    """A `Progress` that writes what another one shows.

    Every event has `time` (seconds since 1970) and `event`: `started` and `ended` (with `failed`) of a stage,
    `progress` at most once per second (`done` of `total`, `note`), `log` with the line that was shown, and `report` at
    the end, with alarms, the summary and each cell's status.

    Args:
        shown: the other one.
        path: the file; events are appended.

    Raises:
        StoreError: the file cannot be written.
    """

    def __init__(self, shown: Progress, path: Path) -> None:
        self._shown = shown
        self._path = path
        self._append("")  # an error here comes before any work

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        """Its beginning, its progress and its end."""
        last = 0.0
        with self._shown.stage(cell, label) as show:
            self._write("started", cell=cell, stage=label)

            def update(done: int, total: int, note: str = "") -> None:
                nonlocal last
                show(done, total, note)
                if time.monotonic() - last >= EVERY_SECONDS or done == total:
                    last = time.monotonic()
                    self._write("progress", cell=cell, stage=label, done=done, total=total, note=note)

            failed = True
            try:
                yield update
                failed = False
            finally:
                self._write("ended", cell=cell, stage=label, failed=failed)

    def log(self, text: str) -> None:
        """A line that stays."""
        self._shown.log(text)
        self._write("log", text=text)

    def report(self, report: Report, folder: Path) -> None:
        """The end: what the report says, and where it is."""
        self._write(
            "report",
            folder=str(folder),
            alarms=[{"kind": one.kind, "about": one.about, "sentence": one.sentence} for one in report.alarms],
            summary=list(report.summary),
            cells={result.name: result.status for result in report.results},
        )

    def _write(self, event: str, **fields: Json) -> None:
        line = json.dumps({"time": round(time.time(), 3), "event": event, **fields}, ensure_ascii=False)
        self._append(line + "\n")

    def _append(self, text: str) -> None:
        with as_store_error(self._path), self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
