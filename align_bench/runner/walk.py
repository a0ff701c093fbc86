"""Walk a graph: have an executor make what is not stored; a failure stops only what needs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from align_bench.report.formatting import duration
from align_bench.stages.stage import closure_of

if TYPE_CHECKING:
    from align_bench.runner.executor import Executor
    from align_bench.runner.progress import Progress
    from align_bench.runner.results import Results
    from align_bench.stages.stage import Stage


def walk(
    wanted: Iterable[Stage[object]],
    results: Results,
    executor: Executor,
    progress: Progress,
    made: Callable[[Stage[object]], None],
) -> None:
    """Make these stages and what they need, as far as it is not stored.

    Args:
        wanted: stages, in the order in which they would be made with all models at hand.
        results: what is stored; what failed in this run is not tried again.
        executor: what makes them.
        progress: where progress is shown.
        made: called with each stage that has ended with a result.

    Raises:
        AlignBenchError: when a stage failed without which the run makes no sense.
        MissingResultError: when something that was stored is so no more, since it was damaged meanwhile.
    """
    left = _Left(wanted, results)
    took: dict[str, dict[str, float]] = {}
    running = 0
    while left.ready or running:
        for stage in executor.start(left.ready):
            left.ready.remove(stage)
            running += 1
        ended = executor.wait()
        if ended is None:
            continue
        running -= 1
        stage = ended.stage
        if ended.made:
            made(stage)
            if stage.models():
                took.setdefault(stage.owner, {})[stage.label] = ended.seconds
        before = left.untrained
        finished = left.end(stage, lost=not ended.made)
        if dropped := [owner for owner in left.untrained if owner not in (*before, stage.owner)]:
            progress.log(f"{', '.join(dropped)}: not trained, since {stage.owner}: {stage.label} failed")
        for owner in finished:
            if owner in took:
                progress.log(_finished(owner, took[owner]))


class _Left:
    """What is left to make of a graph.

    Attributes:
        ready: the stages whose needs are stored, in the order of the graph.
    """

    def __init__(self, wanted: Iterable[Stage[object]], results: Results) -> None:
        missing = closure_of(wanted, done=results.has)
        self._place = {stage: number for number, stage in enumerate(missing)}
        self._open = {stage: {needed for needed in stage.needs() if needed in self._place} for stage in missing}
        self._users: dict[Stage[object], list[Stage[object]]] = {stage: [] for stage in missing}
        for stage, needs in self._open.items():
            for needed in needs:
                self._users[needed].append(stage)
        self._owners = Counter(stage.owner for stage in missing)
        self._failed = results.failed
        self._lost: set[Stage[object]] = set()
        first = [stage for stage in missing if not self._open[stage]]
        self.ready = [stage for stage in first if stage.address not in self._failed]
        for stage in first:
            if stage.address in self._failed:
                self.end(stage, lost=True)

    @property
    def untrained(self) -> list[str]:
        """The owners of what was to be trained and cannot be, in the order of the graph."""
        lost = sorted((stage for stage in self._lost if stage.kind == "adapter"), key=lambda one: self._place[one])
        return list(dict.fromkeys(stage.owner for stage in lost))

    def end(self, stage: Stage[object], *, lost: bool) -> list[str]:
        """A stage has ended: what waits for it is ready, or cannot be made.

        Returns:
            The owners, such as cells, all of whose stages have now ended with a result.
        """
        done = []
        ends = [(stage, lost)]
        while ends:
            one, is_lost = ends.pop()
            if is_lost:
                self._lost.add(one)
            self._owners[one.owner] -= 1
            if not self._owners[one.owner] and not any(other.owner == one.owner for other in self._lost):
                done.append(one.owner)
            for user in self._users[one]:
                self._open[user].discard(one)
                if self._open[user]:
                    continue
                if user.address in self._failed or any(needed in self._lost for needed in user.needs()):
                    ends.append((user, True))
                else:
                    self.ready.append(user)
        self.ready.sort(key=lambda one: self._place[one])
        return done


def _finished(owner: str, took: Mapping[str, float]) -> str:
    """The line of a finished cell: what it took, and most of it."""
    longest = sorted(took, key=lambda label: -took[label])[:2]
    most = ", ".join(f"{label} {duration(took[label])}" for label in longest)
    return f"{owner}: done in {duration(sum(took.values()))}" + (f" ({most})" if len(took) > 1 else "")
