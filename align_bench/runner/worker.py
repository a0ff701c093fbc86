"""What a worker does: it makes one stage after another for another process, and says what happens meanwhile."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from align_bench.errors import AlignBenchError, ModelError, PluginError
from align_bench.records import Facts, Update
from align_bench.runner.libraries import import_libraries
from align_bench.store.store import Store

if TYPE_CHECKING:
    from align_bench.runner.tracking import Tracking
    from align_bench.stages.stage import Stage
    from align_bench.store.keys import Address

EVERY_SECONDS = 0.2  # between two messages on the progress of one stage


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is for.

    Attributes:
        runs: the folder of what has been computed, which every worker reads and writes.
        threads: of one stage's computing.
        device: the one device that it sees, as `CUDA_VISIBLE_DEVICES` names it; None to leave that as it is.
        folder: the one that relative paths of models and data start from; None for the worker's own.
        tracking: the trackers of the run, if it has any.
    """

    runs: Path
    threads: int
    device: str | None = None
    folder: Path | None = None
    tracking: Tracking | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A stage to make.

    Attributes:
        stage: the stage.
        address: its address where it was planned; other code or other libraries would give another one.
        noted: what was found before it ran, by stage: stored with its facts.
        repairs: how many more times what is found damaged may be made anew.
    """

    stage: Stage[object]
    address: Address
    noted: Mapping[Address, Facts]
    repairs: int


@dataclass(frozen=True, slots=True)
class Assist:
    """A part of a stage that several processes make together.

    Attributes:
        stage, address: as in `Task`.
        rank: which of them this is; the first one, 0, is the one that stores the stage.
        meeting: a file by which they find each other.
        divisor: see `models.micro_batches`.
    """

    stage: Stage[object]
    address: Address
    rank: int
    meeting: Path
    divisor: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has started."""


@dataclass(frozen=True, slots=True)
class Started:
    """A stage has begun."""

    owner: str
    label: str


@dataclass(frozen=True, slots=True)
class Updated:
    """A stage has come so far."""

    done: int
    total: int
    note: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """A stage no longer runs; its task may go on."""

    failed: bool


@dataclass(frozen=True, slots=True)
class Said:
    """A line that stays."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """A task has ended.

    Attributes:
        made: whether the stage has a result; if not, its failure is recorded.
        seconds: how long it took.
        error: what ends the whole run, if anything.
    """

    made: bool
    seconds: float
    error: AlignBenchError | None = None


@dataclass(frozen=True, slots=True)
class Here:
    """The worker has loaded its part of a stage, and goes on together with the others."""


@dataclass(frozen=True, slots=True)
class Assisted:
    """A worker's part of a stage has ended.

    Attributes:
        flops: the operations of its passes; None where they were not counted.
        error: why it has failed, if it has.
    """

    flops: float | None
    error: AlignBenchError | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker is gone.

    Attributes:
        how: in words.
    """

    how: str


Message: TypeAlias = "Ready | Started | Updated | Stopped | Said | Done | Here | Assisted | Lost"


class Sent:
    """A `Progress` that sends what is to be shown."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send

    @contextmanager
    def stage(self, cell: str, label: str) -> Iterator[Update]:
        """Its beginning, its progress and its end."""
        last = 0.0

        def update(done: int, total: int, note: str = "") -> None:
            nonlocal last
            if done == total or time.monotonic() - last >= EVERY_SECONDS:
                last = time.monotonic()
                self._send(Updated(done, total, note))

        self._send(Started(cell, label))
        failed = True
        try:
            yield update
            failed = False
        finally:
            self._send(Stopped(failed))

    def log(self, text: str) -> None:
        """A line that stays."""
        self._send(Said(text))


class Worker:
    """Makes stages in this process, on models that it holds from one to the next."""

    def __init__(self, setup: Setup, send: Callable[[Message], None]) -> None:
        """Before torch is imported, so that threads and devices are what the setup says.

        Args:
            setup: what it is for.
            send: takes what is to be shown.
        """
        if setup.device is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = setup.device
        os.environ["OMP_NUM_THREADS"] = str(setup.threads)
        import_libraries()
        import torch

        from align_bench.runner.desk import LocalDesk
        from align_bench.runner.results import Results
        from align_bench.runner.tracking import Trackers

        torch.set_num_threads(setup.threads)
        self._send = send
        self._progress = Sent(send)
        self._results = Results(Store(setup.runs))
        trackers = Trackers(setup.tracking, self._progress.log) if setup.tracking else None
        self._desk = LocalDesk(self._results, self._progress, trackers)

    def make(self, task: Task) -> Done:
        """Make a stage; nothing is raised."""
        from align_bench.runner.make import make

        stage, results = task.stage, self._results
        results.noted.update(task.noted)
        results.repairs = task.repairs
        began = time.perf_counter()
        try:
            _check_address(stage, task.address)
            made = make(stage, results, self._desk, self._progress)
        except AlignBenchError as error:
            return Done(False, time.perf_counter() - began, error)
        except Exception as error:
            self._progress.log("".join(traceback.format_exception(error)))
            what = f"{stage.owner}: {stage.label}: {type(error).__name__}: {error}"
            return Done(False, time.perf_counter() - began, AlignBenchError(what))
        return Done(made, time.perf_counter() - began)

    def assist(self, part: Assist) -> Assisted:
        """Do a part of a stage that several processes make together; nothing is raised."""
        from align_bench.models.flops import counted
        from align_bench.models.micro_batches import divided_by
        from align_bench.runner.helpers import Member
        from align_bench.runner.make import is_permanent

        member = Member(part, self._send)
        try:
            _check_address(part.stage, part.address)
            with divided_by(part.divisor), counted() as work, self._desk.in_team(member):
                part.stage.assist(self._desk)
        except AlignBenchError as error:
            mended = isinstance(error, PluginError) and not is_permanent(error)  # by its cause, which stays here
            told = ModelError(error.message, fix=error.fix) if mended else error
            return Assisted(None, _with_traceback(told, error))
        except Exception as error:
            return Assisted(None, _with_traceback(AlignBenchError(f"{type(error).__name__}: {error}"), error))
        finally:
            member.close()
        return Assisted(work.flops)


def _check_address(stage: Stage[object], address: Address) -> None:
    if stage.address != address:
        raise PluginError(
            f"{stage.owner}: {stage.label}: this worker has other code or libraries than the run was planned "
            "with, and would make another result",
            fix="install the same versions for all workers, and leave their files as they are during a run",
        )


def _with_traceback(told: AlignBenchError, error: BaseException) -> AlignBenchError:
    told.add_note("In another process that trained it:\n" + "".join(traceback.format_exception(error)))
    return told
