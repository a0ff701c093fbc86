"""Walk a graph: make what is not stored, stages of one model together; a failure stops only what needs it."""

from __future__ import annotations

import gc
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from align_bench.data.counts import describe_counts
from align_bench.errors import AlignBenchError, MissingResultError, ModelError, PluginError
from align_bench.report.formatting import duration
from align_bench.stages.stage import closure_of
from align_bench.store.failures import Failure
from align_bench.store.files import as_store_error

if TYPE_CHECKING:
    from align_bench.runner.desk import LocalDesk
    from align_bench.runner.progress import Progress
    from align_bench.runner.results import Results
    from align_bench.stages.stage import Stage


def walk(
    wanted: Iterable[Stage[object]],
    results: Results,
    desk: LocalDesk,
    progress: Progress,
    made: Callable[[Stage[object]], None],
) -> None:
    """Make these stages and what they need, as far as it is not stored.

    Of the stages whose needs are stored, one that finds its model loaded comes first, then one that finds its base
    loaded, then the first in order.

    Args:
        wanted: stages, in the order in which they would be made with all models at hand.
        results: what is stored; failures are recorded in it.
        desk: what stages ask for.
        progress: where progress is shown.
        made: called with each stage that has ended with a result.

    Raises:
        AlignBenchError: when a stage failed without which the run makes no sense.
        MissingResultError: when something that was stored is so no more, since it was damaged meanwhile.
    """
    missing = closure_of(wanted, done=results.has)
    place = {stage: number for number, stage in enumerate(missing)}
    open_needs = {stage: {needed for needed in stage.needs() if needed in place} for stage in missing}
    users: dict[Stage[object], list[Stage[object]]] = {stage: [] for stage in missing}
    for stage, needs in open_needs.items():
        for needed in needs:
            users[needed].append(stage)
    ready = [stage for stage in missing if not open_needs[stage]]
    lost: set[Stage[object]] = set()
    left = Counter(stage.owner for stage in missing)
    took: dict[str, dict[str, float]] = {}
    while ready:
        stage = min(ready, key=lambda one: (desk.distance(one.models()), place[one]))
        ready.remove(stage)
        began = time.perf_counter()
        if (
            stage.address in results.failed
            or any(needed in lost for needed in stage.needs())
            or not _made(stage, results, desk, progress)
        ):
            lost.add(stage)
        else:
            made(stage)
            if stage.models():
                took.setdefault(stage.owner, {})[stage.label] = time.perf_counter() - began
        left[stage.owner] -= 1
        if not left[stage.owner] and stage.owner in took and not any(one.owner == stage.owner for one in lost):
            progress.log(_finished(stage.owner, took[stage.owner]))
        for user in users[stage]:
            open_needs[user].discard(stage)
            if not open_needs[user]:
                ready.append(user)


def _finished(owner: str, took: Mapping[str, float]) -> str:
    """The line of a finished cell: what it took, and most of it."""
    longest = sorted(took, key=lambda label: -took[label])[:2]
    most = ", ".join(f"{label} {duration(took[label])}" for label in longest)
    return f"{owner}: done in {duration(sum(took.values()))}" + (f" ({most})" if len(took) > 1 else "")


def _made(stage: Stage[object], results: Results, desk: LocalDesk, progress: Progress) -> bool:
    """Whether a stage ended with a result. Its failure is recorded and logged."""
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
        record_failure(stage, error, results, progress, permanent=_is_permanent(error))
        del error
        gc.collect()
        return False
    return True


def _is_permanent(error: Exception) -> bool:
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

    store = results.store
    with progress.stage(stage.owner, stage.label) as update, store.scratch(stage.address) as folder, counted() as work:
        meter = Meter()
        desk.update, desk.loading = update, 0.0
        made = stage.run(desk, folder)
        wanted = stage.models()
        computed = wanted[0] if wanted else None
        precision = computed.precision if computed else None
        cost = meter.cost(made.tokens, work.flops, precision)
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
