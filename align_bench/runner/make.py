"""Make one stage in this process: under its lock, once more when memory runs out, and with its failure recorded."""

from __future__ import annotations

import gc
import shutil
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING

from align_bench.data.counts import describe_counts
from align_bench.errors import AlignBenchError, MissingResultError, ModelError, PluginError, StoreError
from align_bench.store.failures import Failure
from align_bench.store.files import as_store_error

if TYPE_CHECKING:
    from align_bench.runner.desk import LocalDesk
    from align_bench.runner.progress import Progress
    from align_bench.runner.results import Results
    from align_bench.stages.stage import Stage


def make(stage: Stage[object], results: Results, desk: LocalDesk, progress: Progress) -> bool:
    """Make a stage whose needs are stored, unless it is stored by now.

    Args:
        stage: the stage.
        results: what is stored; its failure is recorded in it, and logged.
        desk: what it asks for.
        progress: where progress is shown.

    Returns:
        Whether it ended with a result.

    Raises:
        AlignBenchError: when it failed, and the run makes no sense without it.
        MissingResultError: when something that was stored is so no more, since it was damaged meanwhile.
    """
    store = results.store
    waiting = f"waiting for {stage.owner}: {stage.label}, which another run is making"
    try:
        with store.lock(stage.address, lambda: progress.log(waiting)):
            if not results.has(stage):
                _make_in_memory(stage, results, desk, progress)
    except Exception as error:  # one failed stage does not stop the others
        if isinstance(error, MissingResultError) and results.repairs:
            raise  # what it needs was damaged since the walk began, and is made anew
        if stage.fatal:
            with as_store_error(store.folder):
                raise
        record_failure(stage, error, results, progress, permanent=is_permanent(error))
        del error
        gc.collect()
        return False
    return True


def is_permanent(error: Exception) -> bool:
    """Whether a method itself has failed: its key holds its code, its parameters and its rows.

    A model or an artefact that cannot be read, a changed file or a full disk is mended outside of any key.
    """
    return isinstance(error, PluginError) and not isinstance(error.__cause__, OSError | MemoryError)


def record_failure(
    stage: Stage[object], error: Exception, results: Results, progress: Progress, *, permanent: bool
) -> None:
    """Record and log that a stage has failed, so that it is not tried again in this process.

    Args:
        stage: the stage.
        error: why.
        results: where it is recorded.
        progress: where it is logged.
        permanent: whether another process need not try it either: all that the failure came of is in the stage's key.
    """
    store = results.store
    results.failed.add(stage.address)
    reason = error.message if isinstance(error, AlignBenchError) else f"{type(error).__name__}: {error}"
    if isinstance(error, StoreError) and error.fix:  # of the disk, which no page on a method explains
        reason = f"{reason}; {error.fix}"
    what = f"{stage.owner}: {stage.label}"
    shown = "".join(traceback.format_exception(error))
    store.failures.record(stage.address, Failure(what, reason, permanent, shown))
    progress.log(f"{what} failed: {reason} (traceback in {store.failures.path(stage.address)})")


def _make_in_memory(stage: Stage[object], results: Results, desk: LocalDesk, progress: Progress) -> None:
    """Make a stage; where memory runs out, once more from a freshly loaded model, with half as much in each pass.

    Raises:
        ModelError: it ran out again.
    """
    try:
        return _make(stage, results, desk, progress)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        reason = str(error)
    import torch

    from align_bench.models.micro_batches import half_as_much

    # Only here is the error gone, and with it the tensors that its traceback held.
    progress.log(f"{stage.owner}: {stage.label}: out of memory ({reason}); once more with half the micro-batch")
    desk.release()
    torch.cuda.empty_cache()
    try:
        with half_as_much():
            _make(stage, results, desk, progress)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        raise ModelError(
            f"out of memory, with half the micro-batch too: {error}",
            fix="lower train.micro_batch_tokens and generate.batch_size, or free memory",
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    from align_bench.models.out_of_memory import is_out_of_memory

    return is_out_of_memory(error)


def _make(stage: Stage[object], results: Results, desk: LocalDesk, progress: Progress) -> None:
    from align_bench.models.flops import counted
    from align_bench.runner.costs import Meter
    from align_bench.runner.devices import gpus_of

    store = results.store
    with (
        as_store_error(store.folder, no_room=True),
        progress.stage(stage.owner, stage.label) as update,
        store.scratch(stage.address) as folder,
        counted() as work,
    ):
        meter = Meter()
        desk.update, desk.loading = update, 0.0
        with desk.tracked(stage), desk.assisted(stage):
            made = stage.run(desk, folder)
        wanted = stage.models()
        computed = wanted[0] if wanted else None
        precision = computed.precision if computed else None
        cost = meter.cost(made.tokens, work.flops, precision, max(1, len(gpus_of(stage))))
        cost = replace(cost, seconds=cost.seconds - desk.loading)
        store.put(
            stage.address,
            stage.stored_as or stage.owner,
            folder,
            cost,
            {**made.facts, **results.noted.get(stage.address, {})},
        )
    shutil.rmtree(store.partial(stage.address), ignore_errors=True)
    if (counts := describe_counts(made.facts)) is not None:
        progress.log(f"{stage.owner}: {counts}")
    if (line := stage.remark(made.facts)) is not None:
        progress.log(line)
