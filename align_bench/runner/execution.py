"""Where a run makes its stages: in this process, in worker processes, or on a Ray cluster; and how many at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from align_bench.errors import SuiteError
from align_bench.models.base import base_parameters
from align_bench.models.micro_batches import training_tokens
from align_bench.planning.memory import expected_memory
from align_bench.report.formatting import counted
from align_bench.runner.devices import visible_gpus
from align_bench.runner.tracker_kinds import check_trackers
from align_bench.store.files import make_folder

if TYPE_CHECKING:
    from align_bench.planning.inputs import Prepared
    from align_bench.runner.executor import Executor
    from align_bench.runner.on_ray import RayWorkers
    from align_bench.runner.progress import Progress
    from align_bench.runner.results import Results
    from align_bench.runner.tracking import Trackers, Tracking

AUTO = "auto"
MOST_JOBS = 1024  # workers, each a process with a model of its own
UNKNOWN_BYTES = 2e9  # of a worker on a base whose shape is not known


@dataclass(frozen=True, slots=True)
class Execution:
    """Where a run makes its stages.

    Attributes:
        jobs: how many are made at a time; `auto` for one per GPU (or per `train.processes` of them), or without GPUs
            as many as memory and cores allow; None for one on this machine, and for as many as a cluster has room for.
        executor: `local` for this machine, `ray` for a Ray cluster.
        ray_address: of a cluster that runs; None for one that is started here and ends with the run.
        track: trackers that also take steps, tables and report; see `tracker_kinds`.
    """

    jobs: int | Literal["auto"] | None = None
    executor: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    track: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.jobs not in (None, AUTO) and (
            isinstance(self.jobs, bool) or not isinstance(self.jobs, int) or not 1 <= self.jobs <= MOST_JOBS
        ):
            raise SuiteError(f"jobs: got {self.jobs!r}; expected a whole number from 1 to {MOST_JOBS:,}, or {AUTO!r}")
        if self.executor not in ("local", "ray"):
            raise SuiteError(f"executor: got {self.executor!r}; expected 'local' or 'ray'")
        if self.ray_address is not None and self.executor != "ray":
            raise SuiteError("a Ray address is given, but the executor is local", fix="add --executor ray")
        check_trackers(self.track)


@dataclass(frozen=True, slots=True)
class Share:
    """What each of several workers of one machine has.

    Attributes:
        workers: how many there are.
        threads: of one worker's computing.
        devices: the GPUs of each, as `CUDA_VISIBLE_DEVICES` names them; none where the CPU computes.
    """

    workers: int
    threads: int
    devices: tuple[str, ...] = ()


@contextmanager
def executor_of(
    execution: Execution, prepared: Prepared, results: Results, progress: Progress, trackers: Trackers | None = None
) -> Iterator[Executor]:
    """What makes the stages of a run; when the context ends, nothing of it runs any more.

    Raises:
        AlignBenchError: when Ray is not installed, or its cluster cannot be reached.
    """
    executor = _executor(execution, prepared, results, progress, trackers)
    try:
        yield executor
    finally:
        executor.close()


def _executor(
    execution: Execution, prepared: Prepared, results: Results, progress: Progress, trackers: Trackers | None
) -> Executor:
    from align_bench.runner.crew import Crew

    store, jobs = results.store, execution.jobs
    tracking = trackers.tracking if trackers else None
    if execution.executor == "ray":
        cluster = _cluster(execution, prepared, store.folder, tracking)
        progress.log(f"up to {counted(cluster.most, 'worker')} on a Ray cluster of {counted(cluster.nodes, 'node')}")
        return Crew(cluster, results, progress)
    if jobs is None or jobs == 1:
        from align_bench.runner.desk import LocalDesk
        from align_bench.runner.executor import InProcess

        return InProcess(results, LocalDesk(results, progress, trackers), progress)
    from align_bench.runner.processes import Processes
    from align_bench.runner.worker import Setup

    share = share_of(prepared, jobs)
    gpus = sum(len(names.split(",")) for names in share.devices)
    where = f"on {counted(gpus, 'GPU')}" if gpus else "on the CPU"
    progress.log(f"up to {counted(share.workers, 'worker')} {where}, {counted(share.threads, 'thread')} each")
    setup = Setup(store.folder, share.threads, tracking=tracking)
    return Crew(Processes(share.workers, setup, share.devices), results, progress)


def _cluster(execution: Execution, prepared: Prepared, runs: Path, tracking: Tracking | None) -> RayWorkers:
    """The cluster, whose workers ask for a CPU per thread, and for GPUs or memory for all processes of a cell."""
    from align_bench.runner.on_ray import RayWorkers, Resources
    from align_bench.runner.worker import Setup

    gpu, processes = prepared.inputs.frozen.precision.device == "cuda", prepared.suite.train.processes
    threads = max(given_threads() or 1, processes)
    memory = 0 if gpu else int(processes * worker_bytes(prepared))
    resources = Resources(threads, processes if gpu else 0, memory)
    most = execution.jobs if isinstance(execution.jobs, int) else None
    make_folder(runs)
    setup = Setup(runs.resolve(), threads, folder=Path.cwd(), tracking=tracking)
    return RayWorkers(most, setup, resources, execution.ray_address)


def share_of(prepared: Prepared, jobs: int | Literal["auto"]) -> Share:
    """What each of the workers of this machine has."""
    processes = prepared.suite.train.processes
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = given_threads()
    gpus = visible_gpus() if prepared.inputs.frozen.precision.device == "cuda" else ()
    devices = _in_groups(gpus, processes)
    if isinstance(jobs, int):
        workers = jobs
    elif devices:
        workers = len(devices)
    else:
        workers = max(1, min(cores // max(threads or 1, processes), _that_fit(prepared)))
    return Share(workers, threads or max(1, cores // workers), devices)


def given_threads() -> int | None:
    """The threads of one stage that `OMP_NUM_THREADS` asks for; None where it does not."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) or None if given.isdecimal() else None


def _in_groups(gpus: tuple[str, ...], processes: int) -> tuple[str, ...]:
    """The GPUs of each worker, so many to one; fewer than a worker asks for are those of a single one."""
    whole = range(0, len(gpus) - processes + 1, processes)
    return tuple(",".join(gpus[first : first + processes]) for first in whole) or ((",".join(gpus),) if gpus else ())


def _that_fit(prepared: Prepared) -> int:
    """How many workers the free memory of this machine has room for."""
    import psutil

    return int(psutil.virtual_memory().available // (prepared.suite.train.processes * worker_bytes(prepared)))


def worker_bytes(prepared: Prepared) -> float:
    """The memory that one process is expected to take at its peak: passes and prompts as long as the suite allows."""
    suite, frozen = prepared.suite, prepared.inputs.frozen
    tokens = training_tokens(suite.train.micro_batch_tokens, frozen.precision.device), suite.train.max_length
    found = expected_memory(suite, frozen.base, base_parameters(frozen.base), frozen.precision, tokens)
    return UNKNOWN_BYTES if found is None else max(found.training, found.answering)
