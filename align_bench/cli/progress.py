"""Progress in the terminal: a bar for the whole run and one for each stage, with what stays above them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from align_bench.cli.interrupts import interrupts_said
from align_bench.records import Update
from align_bench.report.formatting import duration

# Before this much time has passed, the pace so far is no estimate.
LEAST_SECONDS = 5.0


@contextmanager
def progress_bars(console: Console, expected: Mapping[tuple[str, str], float]) -> Iterator[ProgressBars]:
    """Show progress bars while the context lasts; an interrupt then ends the command in words.

    Args:
        console: where they are shown.
        expected: cell and label of a stage → its expected seconds; none when nothing is to be done.

    Raises:
        typer.Exit: after Ctrl-C or SIGTERM.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        _Remaining(),
        TextColumn("{task.fields[note]}"),
    )
    bars = Bars(*columns, console=console, transient=False)
    progress = ProgressBars(bars, expected)
    with interrupts_said(lambda: progress.where), bars:
        yield progress


class ProgressBars:
    """A `Progress` of bars, one for the whole run and one for each stage, with what stays above them.

    Attributes:
        where: what is being done, or was when the run ended early, in words.
    """

    def __init__(
        self,
        bars: Bars,
        expected: Mapping[tuple[str, str], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bars = bars
        self._whole = Whole(expected, clock)
        self._bar = bars.add_task("whole run, %", total=100, note="") if expected else None
        self.where = "before the first stage"

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        """A bar until the context ends."""
        task = self._bars.add_task(escape(f"{cell}: {label}"), total=None, note="")
        self.where = f"in {cell}: {label}"

        def update(done: int, total: int, note: str = "") -> None:
            self.where = f"in {cell}: {label}, at {done} of {total}"
            self._bars.update(task, completed=done, total=total, note=note)
            self._show(cell, label, done / total if total else 0.0)

        try:
            yield update
            self.where = f"after {cell}: {label}"
        finally:
            self._bars.stop_task(task)
            self._show(cell, label, 1.0)

    def log(self, text: str) -> None:
        """One line above the bars."""
        self._bars.console.print(escape(text), highlight=False)

    def _show(self, cell: str, label: str, share: float) -> None:
        self._whole.reach(cell, label, share)
        if self._bar is not None:
            self._bars.update(self._bar, completed=round(100 * self._whole.share), left=self._whole.seconds_left)


class Whole:
    """How far the whole run is, by what its stages were expected to take and by how long they did."""

    def __init__(self, expected: Mapping[tuple[str, str], float], clock: Callable[[], float]) -> None:
        self._expected = expected
        self._reached: dict[tuple[str, str], float] = {}
        self._clock = clock
        self._started = clock()

    def reach(self, cell: str, label: str, share: float) -> None:
        """A stage is done to this share, from 0 to 1."""
        if (cell, label) in self._expected:
            self._reached[cell, label] = share

    @property
    def share(self) -> float:
        """The share of the expected seconds that is done."""
        total = sum(self._expected.values())
        return self._done / total if total else 1.0

    @property
    def seconds_left(self) -> float:
        """What is left of the expected seconds, at the pace at which the others passed."""
        left, passed = sum(self._expected.values()) - self._done, self._clock() - self._started
        return left * passed / self._done if self._done and passed > LEAST_SECONDS else left

    @property
    def _done(self) -> float:
        return sum(share * self._expected[stage] for stage, share in self._reached.items())


class _Remaining(TimeRemainingColumn):
    """The whole run's own estimate, which knows that its stages differ; for a stage, that by its speed."""

    def render(self, task: Task) -> Text:
        left = task.fields.get("left")
        return super().render(task) if left is None else Text(duration(round(left)), style="progress.remaining")
