"""Stages made by workers: which worker makes which, what is shown of them, and what is done when a worker dies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from align_bench.errors import ModelError
from align_bench.runner.desk import distance
from align_bench.runner.executor import Ended
from align_bench.runner.make import record_failure
from align_bench.runner.worker import Done, Lost, Message, Ready, Said, Started, Stopped, Task, Updated
from align_bench.stages.classifier import Classifier

if TYPE_CHECKING:
    from align_bench.records import Update
    from align_bench.runner.progress import Progress
    from align_bench.runner.results import Results
    from align_bench.stages.models import ModelKey
    from align_bench.stages.stage import Stage

MOST_TRIES = 2  # of a stage whose workers die
MOST_STILLBORN = 3  # workers one after the other that die before they have started


class Transport(Protocol):
    """Starts workers, and carries tasks to them and messages back.

    Attributes:
        most: how many workers there may be at once.
    """

    most: int

    def hire(self) -> int:
        """Start a worker; its first message is `Ready`.

        Returns:
            Its number; none is given twice.
        """

    def give(self, worker: int, task: Task) -> None:
        """Send a task to a worker that has none."""

    def hear(self) -> Iterable[tuple[int, Message]]:
        """Messages with their worker, in the order of each worker; waits for some, but not for long."""

    def close(self) -> None:
        """Stop all workers, at once and for good."""


@dataclass(slots=True)
class _Worker:
    """A worker as it is seen from here.

    Attributes:
        ready: whether it has started.
        task: what it makes; None when it is idle.
        held: the model that it made its last stage with.
        shown: the stage that is shown, and what takes its progress.
    """

    ready: bool = False
    task: Task | None = None
    held: ModelKey | None = None
    shown: tuple[AbstractContextManager[Update], Update] | None = None

    def distance(self, wanted: Sequence[ModelKey]) -> int:
        """How much it would have to load, see `desk.distance`."""
        base = None if self.held is None or isinstance(self.held, Classifier) else self.held.base_key
        return distance(wanted, self.held, base)


@dataclass(slots=True)
class Crew:
    """An `Executor` with several workers, each of which makes one stage at a time.

    Workers are started when there is work for them, up to `transport.most`. The stage of a worker that dies is given to
    another one, once; it goes on from its last checkpoint.
    """

    transport: Transport
    results: Results
    progress: Progress
    _workers: dict[int, _Worker] = field(default_factory=dict)
    _again: list[Task] = field(default_factory=list)
    _tries: dict[Stage[object], int] = field(default_factory=dict)
    _ended: list[Ended] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)
    _stillborn: int = 0

    def start(self, ready: Sequence[Stage[object]]) -> Sequence[Stage[object]]:
        """Give each idle worker a stage, first those that a worker has died of."""
        waiting = [*(task.stage for task in self._again), *ready]
        wanted = min(self.transport.most, len(waiting) + sum(one.task is not None for one in self._workers.values()))
        while len(self._workers) < wanted:
            self._workers[self.transport.hire()] = _Worker()
        idle = {number: one for number, one in self._workers.items() if one.ready and one.task is None}
        begun: list[Stage[object]] = []
        while idle and waiting:
            number, stage = min(
                ((number, stage) for stage in waiting for number in idle),
                key=lambda pair: idle[pair[0]].distance(pair[1].models()),
            )
            waiting.remove(stage)
            self._give(number, idle.pop(number), stage)
            begun.append(stage)
        again = {task.stage for task in self._again}
        self._again = [task for task in self._again if task.stage not in begun]
        return [stage for stage in begun if stage not in again]

    def _give(self, number: int, worker: _Worker, stage: Stage[object]) -> None:
        noted = self.results.noted.get(stage.address)
        worker.task = Task(stage, stage.address, {stage.address: noted} if noted else {}, self.results.repairs)
        worker.held = next(iter(stage.models()), worker.held)
        self._tries[stage] = self._tries.get(stage, 0) + 1
        self.transport.give(number, worker.task)

    def wait(self) -> Ended | None:
        """Show what workers say, until a stage has ended or there may be room for another one."""
        if not self._ended:
            for number, message in self.transport.hear():
                self._take(number, message)
        return self._ended.pop(0) if self._ended else None

    def _take(self, number: int, message: Message) -> None:
        if (worker := self._workers.get(number)) is None:
            return  # the last words of a lost worker may come late
        match message:
            case Ready():
                worker.ready, self._stillborn = True, 0
            case Started(owner, label):
                context = self.progress.stage(owner, label)
                worker.shown = (context, context.__enter__())
            case Updated(done, total, note):
                if worker.shown is not None:
                    worker.shown[1](done, total, note)
            case Stopped(failed):
                _hide(worker, failed=failed)
            case Said(text):
                self._say(text)
            case Done():
                self._done(worker, message)
            case Lost(how):
                _hide(worker, failed=True)
                del self._workers[number]
                self._lost(worker, how)

    def _say(self, text: str) -> None:
        """A line that another worker has said already, such as what it has loaded, says nothing new."""
        if text not in self._said:
            self._said.add(text)
            self.progress.log(text)

    def _done(self, worker: _Worker, message: Done) -> None:
        assert worker.task is not None, "it had one"
        stage, worker.task = worker.task.stage, None
        if message.error is not None:
            raise message.error
        if not message.made:
            self.results.failed.add(stage.address)
        self._ended.append(Ended(stage, message.made, message.seconds))

    def _lost(self, worker: _Worker, how: str) -> None:
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn >= MOST_STILLBORN:
                raise ModelError(
                    f"no worker can be started: of the last one, {how}",
                    fix="look for its error above; without --jobs and --executor, all is made in one process",
                )
        task = worker.task
        if task is None:
            return
        stage = task.stage
        what = f"{stage.owner}: {stage.label}"
        if self._tries[stage] < MOST_TRIES:
            self.progress.log(f"{what}: its worker was lost ({how}); another one goes on from the last checkpoint")
            self._again.append(task)
            return
        error = ModelError(
            f"{MOST_TRIES} workers that made it were lost, the last one: {how}",
            fix="memory may have run out: try fewer --jobs, or a lower train.micro_batch_tokens",
        )
        if stage.fatal:
            raise ModelError(f"{what}: {error.message}", fix=error.fix)
        record_failure(stage, error, self.results, self.progress, permanent=False)
        self._ended.append(Ended(stage, False, 0.0))

    def close(self) -> None:
        """Stop all workers."""
        self.transport.close()
        for worker in self._workers.values():
            _hide(worker, failed=True, interrupted=True)
        self._workers.clear()


class _LostError(Exception):
    """Ends what is shown of a stage that has failed elsewhere."""


def _hide(worker: _Worker, *, failed: bool, interrupted: bool = False) -> None:
    """A worker's stage is shown no longer."""
    if worker.shown is None:
        return
    context, worker.shown = worker.shown[0], None
    error = (KeyboardInterrupt if interrupted else _LostError)() if failed else None
    with suppress(_LostError, KeyboardInterrupt):
        context.__exit__(type(error) if error else None, error, None)
