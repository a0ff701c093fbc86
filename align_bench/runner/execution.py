"""Where a run makes its stages: in this process, or in worker processes; and how many at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from align_bench.errors import SuiteError
from align_bench.models.base import base_parameters
from align_bench.planning.memory import expected_memory

if TYPE_CHECKING:
    from align_bench.planning.inputs import Prepared
    from align_bench.runner.executor import Executor
    from align_bench.runner.progress import Progress
    from align_bench.runner.results import Results

AUTO = "auto"
UNKNOWN_BYTES = 2e9  # of a worker on a base whose shape is not known


@dataclass(frozen=True, slots=True)
class Execution:
    """Where a run makes its stages.

    Attributes:
        jobs: how many are made at a time; `auto` for one per GPU, or without GPUs as many as memory and cores allow.
    """

    jobs: int | Literal["auto"] = 1

    def __post_init__(self) -> None:
        if self.jobs != AUTO and (isinstance(self.jobs, bool) or not isinstance(self.jobs, int) or self.jobs < 1):
            raise SuiteError(f"jobs: got {self.jobs!r}; expected a whole number of 1 or more, or {AUTO!r}")


@dataclass(frozen=True, slots=True)
class Share:
    """What each of several workers of one machine has.

    Attributes:
        workers: how many there are.
        threads: of one worker's computing.
        devices: the GPUs, as `CUDA_VISIBLE_DEVICES` names them; none where the CPU computes.
    """

    workers: int
    threads: int
    devices: tuple[str, ...] = ()


@contextmanager
def executor_of(execution: Execution, prepared: Prepared, results: Results, progress: Progress) -> Iterator[Executor]:
    """What makes the stages of a run; when the context ends, nothing of it runs any more."""
    executor = _executor(execution, prepared, results, progress)
    try:
        yield executor
    finally:
        executor.close()


def _executor(execution: Execution, prepared: Prepared, results: Results, progress: Progress) -> Executor:
    from align_bench.runner.crew import Crew

    suite, store = prepared.suite.name, results.store
    if execution.jobs == 1:
        from align_bench.runner.desk import LocalDesk
        from align_bench.runner.executor import InProcess

        return InProcess(results, LocalDesk(results, progress, suite), progress)
    from align_bench.runner.bench import Setup
    from align_bench.runner.processes import Processes

    share = share_of(prepared, execution.jobs)
    where = f"on {len(share.devices)} GPUs" if share.devices else "on the CPU"
    threads = "1 thread" if share.threads == 1 else f"{share.threads} threads"
    progress.log(f"up to {share.workers} workers {where}, {threads} each")
    return Crew(Processes(share.workers, Setup(store.folder, suite, share.threads), share.devices), results, progress)


def share_of(prepared: Prepared, jobs: int | Literal["auto"]) -> Share:
    """What each of the workers of this machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(given) if given.isdecimal() and int(given) else None
    devices = _devices() if prepared.inputs.frozen.precision.device == "cuda" else ()
    if isinstance(jobs, int):
        workers = jobs
    elif devices:
        workers = len(devices)
    else:
        workers = max(1, min(cores // (threads or 1), _that_fit(prepared)))
    return Share(workers, threads or max(1, cores // workers), devices)


def _devices() -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip())
    import torch

    return tuple(map(str, range(torch.cuda.device_count())))


def _that_fit(prepared: Prepared) -> int:
    """How many workers the free memory of this machine has room for."""
    import psutil

    return int(psutil.virtual_memory().available // worker_bytes(prepared))


def worker_bytes(prepared: Prepared) -> float:
    """The memory that a worker is expected to take at its peak: passes and prompts as long as the suite allows."""
    suite, frozen = prepared.suite, prepared.inputs.frozen
    tokens = suite.train.micro_batch_tokens, suite.train.max_length
    found = expected_memory(suite, frozen.base, base_parameters(frozen.base), frozen.precision, tokens)
    return UNKNOWN_BYTES if found is None else max(found.training, found.answering)
