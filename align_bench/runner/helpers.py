"""Further processes of this machine that make a stage together with this one: started, heard, and ended."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from align_bench.errors import AlignBenchError, ModelError
from align_bench.models.flops import counted_elsewhere
from align_bench.models.micro_batches import divisor
from align_bench.report.formatting import counted
from align_bench.runner.devices import gpus_of
from align_bench.runner.processes import Processes
from align_bench.runner.worker import Assist, Assisted, Here, Lost, Message, Setup
from align_bench.train.group import Group, LostProcessError, met

if TYPE_CHECKING:
    from align_bench.stages.stage import Stage

SAYS_WHY_IN = 10.0  # seconds, for a process that the others do not hear any more
MEETS_IN = timedelta(minutes=1)  # once all of them have said that they are there

M = TypeVar("M", Here, Assisted)


@contextmanager
def helpers_of(stage: Stage[object], runs: Path, say: Callable[[str], None]) -> Iterator[Helpers]:
    """Start them; when the context ends, none of them runs any more, and what they computed is counted.

    Each computes on a GPU of its own, from the first again where these are fewer, and with its share of this process's
    threads.

    Raises:
        AlignBenchError: in place of a process that is lost, why that is so.
    """
    import torch

    before, gpus = torch.get_num_threads(), gpus_of(stage)
    threads = max(1, before // stage.processes)
    where = f"on {counted(len(gpus), 'GPU')}" if gpus else f"with {counted(threads, 'thread')} each"
    say(f"{stage.owner}: {stage.label}: {stage.processes} processes {where}")
    with tempfile.TemporaryDirectory() as folder:
        processes = Processes(stage.processes - 1, Setup(runs, threads), [*gpus[1:], *gpus[:1]])
        helpers = Helpers(stage, processes, Path(folder, "meeting"))
        torch.set_num_threads(threads)
        try:
            yield helpers
            counted_elsewhere(helpers.flops())
        except LostProcessError as error:
            raise (helpers.reason() or error) from None
        finally:
            torch.set_num_threads(before)
            helpers.close()


class Helpers:
    """The further processes of a stage, as the first one sees them."""

    def __init__(self, stage: Stage[object], processes: Processes, meeting: Path) -> None:
        self._size = stage.processes
        self._processes = processes
        self._meeting = meeting
        self._group = ExitStack()
        self._met = False
        self._ranks: dict[int, int] = {}
        try:
            for rank in range(1, self._size):
                number = processes.hire()
                self._ranks[number] = rank
                processes.give(number, Assist(stage, stage.address, rank, meeting, divisor()))
        except BaseException:
            processes.close()
            raise

    def group(self) -> Group:
        """All processes, once each of them has loaded what it needs.

        Raises:
            AlignBenchError: one of them has failed.
        """
        self._wait_for(Here)
        for number, message in self._processes.hear(within=0):  # one that was there, and is lost since
            if (error := self._failure(number, message)) is not None:
                raise error
        self._met = True
        return self._group.enter_context(met(0, self._size, self._meeting, MEETS_IN))

    def flops(self) -> float | None:
        """The operations of the further processes, once they have ended; None where some were not counted.

        Raises:
            AlignBenchError: one of them has failed.
        """
        found = [ended.flops for ended in self._wait_for(Assisted)]
        return None if None in found else sum(flops for flops in found if flops is not None)

    def _wait_for(self, kind: type[M]) -> list[M]:
        """That message of each."""
        found: list[M] = []
        while len(found) < len(self._ranks):
            for number, message in self._processes.hear():
                if (error := self._failure(number, message)) is not None:
                    raise error
                if isinstance(message, kind):
                    found.append(message)
        return found

    def reason(self) -> AlignBenchError | None:
        """Why one is not heard by the others any more; None if none of them says so in time."""
        until = time.monotonic() + SAYS_WHY_IN
        while time.monotonic() < until:
            for number, message in self._processes.hear():
                error = self._failure(number, message)
                if error is not None and not isinstance(error, LostProcessError):  # that is what the others died of
                    return error
        return None

    def _failure(self, number: int, message: Message) -> AlignBenchError | None:
        """What a message says of a process that has failed; None for one that has not."""
        match message:
            case Assisted(error=AlignBenchError() as error):
                return error
            case Lost(how):
                return ModelError(
                    f"of {self._size} processes that train together, number {self._ranks[number] + 1} was lost: {how}",
                    fix="memory may have run out: try fewer train.processes, or a lower train.micro_batch_tokens; the "
                    "next run goes on from the last checkpoint",
                )
        return None

    def close(self) -> None:
        """End all of them."""
        with suppress(RuntimeError):  # of a connection that is closed at the other end
            self._group.close()
        self._processes.close(publishing=not self._met)  # what loads a model may have a temporary file


class Member:
    """One of the further processes, as it sees itself."""

    def __init__(self, part: Assist, send: Callable[[Message], None]) -> None:
        self._part = part
        self._send = send
        self._group = ExitStack()

    def group(self) -> Group:
        """All processes, once each of them has come to this point."""
        self._send(Here())
        part = self._part
        return self._group.enter_context(met(part.rank, part.stage.processes, part.meeting))

    def close(self) -> None:
        """Leave the others."""
        with suppress(RuntimeError):
            self._group.close()
