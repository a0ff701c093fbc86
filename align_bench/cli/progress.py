"""Progress in the terminal: a bar for the whole run and one for what it is making, below the lines that stay."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from align_bench.cli.interrupts import interrupts_said
from align_bench.records import Update
from align_bench.report.formatting import duration, visible

# Before this much time has passed, the pace so far is no estimate.
LEAST_SECONDS = 2.0
WIDTH = 36  # of what a bar is called, so that it fits beside the rest on 80 columns


@contextmanager
def progress_bars(console: Console, expected: Mapping[tuple[str, str], float]) -> Iterator[ProgressBars]:
    """Show progress bars while the context lasts; an interrupt then ends the command in words.

    Args:
        console: where they are shown.
        expected: cell and label of a stage → its expected seconds; none when nothing is to be done.

    Raises:
        typer.Exit: after Ctrl-C or SIGTERM.
    """
    one_line = Column(no_wrap=True, overflow="ellipsis")
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=WIDTH)),
        BarColumn(bar_width=8),
        MofNCompleteColumn(table_column=one_line),
        TextColumn("ETA", table_column=one_line),
        _Remaining(table_column=one_line),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
    )
    bars = Bars(*columns, console=console, transient=True, expand=True)
    progress = ProgressBars(bars, expected)
    with interrupts_said(lambda: progress.where), bars:
        yield progress


class ProgressBars:
    """A `Progress` of bars, one for the whole run and one for each running stage, below the lines that stay."""

    def __init__(
        self,
        bars: Bars,
        expected: Mapping[tuple[str, str], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bars = bars
        self._whole = Whole(expected, clock)
        self._bar = bars.add_task("whole run, %", total=100, note="") if expected else None
        self._running: dict[tuple[str, str], str] = {}
        self._ended = "before the first stage"

    @property
    def where(self) -> str:
        """What is being done, or was when the run ended early, in words."""
        return f"in {'; '.join(self._running.values())}" if self._running else self._ended

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        """A bar while the context lasts."""
        room = max(1, WIDTH - len(label) - 2)
        name = cell if len(cell) <= room else f"{cell[: room // 2]}…{cell[len(cell) - (room - 1) // 2 :]}"
        task = self._bars.add_task(escape(visible(f"{name}: {label}")), total=None, note="")
        self._running[cell, label] = f"{cell}: {label}"

        def update(done: int, total: int, note: str = "") -> None:
            self._running[cell, label] = f"{cell}: {label}, at {done} of {total}"
            self._bars.update(task, completed=done, total=total, note=note)
            self._show(cell, label, done / total if total else 0.0)

        interrupted = True
        try:
            yield update
            interrupted = False
        except Exception:
            interrupted = False
            raise
        finally:
            if not interrupted:
                self._running.pop((cell, label), None)
                self._ended = f"after {cell}: {label}"
            self._bars.remove_task(task)
            self._show(cell, label, 1.0)
            self._bars.refresh()  # so that a line that is printed now does not bring it back

    def log(self, text: str) -> None:
        """One line above the bars."""
        self._bars.console.print(escape(visible(text)), highlight=False)

    def _show(self, cell: str, label: str, share: float) -> None:
        self._whole.reach(cell, label, share)
        if self._bar is not None:
            self._bars.update(self._bar, completed=round(100 * self._whole.share), left=self._whole.seconds_left)


@dataclass(slots=True)
class _Passed:
    """How far a stage is: the share when it was first heard of, the share now, and the seconds between the two."""

    first: float
    share: float
    seconds: float

    @property
    def done(self) -> float:
        """The share that these seconds took: a resumed training begins in its middle."""
        return self.share - self.first


class Whole:
    """How far the whole run is, by what its stages were expected to take and by how long they did.

    Stages of one label (all trainings, say) are expected to be as much faster or slower than was thought as those that
    have been seen, from their first steps on; stages of a label that was not seen yet, as all that were.
    """

    def __init__(self, expected: Mapping[tuple[str, str], float], clock: Callable[[], float]) -> None:
        self._expected = expected
        self._passed: dict[tuple[str, str], _Passed] = {}
        self._clock = clock
        self._heard = clock()

    def reach(self, cell: str, label: str, share: float) -> None:
        """A stage is done to this share, from 0 to 1."""
        now = self._clock()
        since, self._heard = now - self._heard, now
        if (stage := (cell, label)) not in self._expected:
            return
        if stage in self._passed:
            self._passed[stage].share = share
            self._passed[stage].seconds += since
        elif share == 1.0:  # its only report
            self._passed[stage] = _Passed(0.0, share, since)
        else:
            self._passed[stage] = _Passed(share, share, 0.0)

    @property
    def share(self) -> float:
        """The share of the expected seconds that is done."""
        total = sum(self._expected.values())
        done = sum(passed.share * self._expected[stage] for stage, passed in self._passed.items())
        return done / total if total else 1.0

    @property
    def seconds_left(self) -> float:
        """What is left of the expected seconds, at the pace of the stages that were seen."""
        left: dict[str, float] = {}
        for (cell, label), seconds in self._expected.items():
            passed = self._passed.get((cell, label))
            left[label] = left.get(label, 0.0) + seconds * (1.0 - (passed.share if passed else 0.0))
        whole = self._pace() or 1.0
        return sum(seconds * (self._pace(label) or whole) for label, seconds in left.items())

    def _pace(self, label: str | None = None) -> float | None:
        """Seconds per expected second, of one label or of all; None before enough of them have passed."""
        seen = [(stage, passed) for stage, passed in self._passed.items() if label in (None, stage[1])]
        seconds = sum(passed.seconds for _, passed in seen)
        expected = sum(passed.done * self._expected[stage] for stage, passed in seen)
        return seconds / expected if expected and seconds > LEAST_SECONDS else None


class _Remaining(TimeRemainingColumn):
    """The whole run's own estimate, which knows that its stages differ; for a stage, that by its speed."""

    def render(self, task: Task) -> Text:
        left = task.fields.get("left")
        return super().render(task) if left is None else Text(duration(round(left)), style="progress.remaining")
