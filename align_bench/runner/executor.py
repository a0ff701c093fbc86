"""What makes stages: this process, worker processes (`crew`, `processes`), or a cluster (`crew`, `on_ray`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from align_bench.runner.make import make

if TYPE_CHECKING:
    from align_bench.runner.desk import LocalDesk
    from align_bench.runner.progress import Progress
    from align_bench.runner.results import Results
    from align_bench.stages.stage import Stage


@dataclass(frozen=True, slots=True)
class Ended:
    """A stage that has ended.

    Attributes:
        stage: the stage.
        made: whether it has a result.
        seconds: how long it took, on the clock.
    """

    stage: Stage[object]
    made: bool
    seconds: float


class Executor(Protocol):
    """Makes stages whose needs are stored, one or several at a time."""

    def start(self, ready: Sequence[Stage[object]]) -> Sequence[Stage[object]]:
        """Begin to make as many of these as there is room for now.

        Args:
            ready: stages whose needs are stored, in order of preference. One that finds its model loaded comes first,
                then one that finds its base loaded, then the first in order.

        Returns:
            Those that were begun.

        Raises:
            AlignBenchError: when no worker can be started.
        """

    def wait(self) -> Ended | None:
        """Wait for a stage to end, and show progress meanwhile; None when there may be room for more stages.

        Raises:
            AlignBenchError: when a stage failed without which the run makes no sense.
            MissingResultError: when something that was stored is so no more, since it was damaged meanwhile.
        """

    def close(self) -> None:
        """Stop all that runs, and let go of every model."""


class InProcess:
    """An `Executor` in this process: one stage at a time, one model in memory."""

    def __init__(self, results: Results, desk: LocalDesk, progress: Progress) -> None:
        self._results = results
        self._desk = desk
        self._progress = progress
        self._next: Stage[object] | None = None

    def start(self, ready: Sequence[Stage[object]]) -> Sequence[Stage[object]]:
        """The first of those that have the least to load; it is made by `wait`."""
        self._next = min(ready, key=lambda stage: self._desk.distance(stage.models()))
        return [self._next]

    def wait(self) -> Ended | None:
        """Make it."""
        stage, self._next = self._next, None
        assert stage is not None, "one was started"
        began = time.perf_counter()
        made = make(stage, self._results, self._desk, self._progress)
        return Ended(stage, made, time.perf_counter() - began)

    def close(self) -> None:
        """Let go of every model."""
        self._desk.release()
