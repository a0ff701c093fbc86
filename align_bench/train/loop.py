"""The one training loop: effective batches, gradient accumulation over token-budgeted micro-batches, checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from accelerate import Accelerator

from align_bench.data.batches import effective_batches
from align_bench.models.layout import training_passes
from align_bench.train.auxiliary import attach
from align_bench.train.feeds import BatchFeed, feed_of
from align_bench.train.group import ALONE
from align_bench.train.job import TrainLog
from align_bench.train.moving_reference import MovingReference
from align_bench.train.plugin_code import plugin_code
from align_bench.train.steps import State, Sums, accumulated, budget_of, one_process

if TYPE_CHECKING:
    from align_bench.api import Loss, OfflineAlgorithm
    from align_bench.train.feeds import Feed, Reference
    from align_bench.train.group import Group
    from align_bench.train.job import TrainingJob


def train(job: TrainingJob[OfflineAlgorithm], reference: Reference | None = None, group: Group = ALONE) -> TrainLog:
    """Train the model's adapter in place, with the companion that the method declares.

    The gradient of a step is that of the mean loss over its effective batch, however that is cut into micro-batches
    and however many processes share it.

    Args:
        job: the training.
        reference: base log-probabilities by column (`chosen`, `rejected`, `mismatched_…`), each of shape [rows].
        group: the processes that train together, each on a job of its own that says the same.

    Raises:
        PluginError: when the loss raises, returns something else than a Loss, or is not finite.
        DataError: when the rows do not fit the method's data kind.
        ModelError: when started as one of several processes, or one of the group is gone.
    """
    accelerator, model, settings = one_process(), job.model, job.settings
    with plugin_code(f"the auxiliary of {job.algorithm.name}"):
        beside = job.algorithm.beside(job.parameters)
    if beside is not None:
        attach(model, beside, seed=job.seed)
    every = job.algorithm.sync_steps(job.parameters)
    moving = None if every is None else MovingReference(every)
    feed = feed_of(job.algorithm, job.rows, reference, job.parameters, moving)
    batches = effective_batches(len(feed.lengths), settings.batch_size, epochs=settings.epochs, seed=job.seed)
    state = State(job, len(batches), group)
    if moving is not None:
        moving.weights = state.reference
    model.train()
    with budget_of(job, state) as budget:
        while state.step < len(batches):
            batch = batches[state.step]
            if isinstance(feed, BatchFeed):
                feed.before = state.running
            group.reseed(job.seed, state.step)
            sums = budget.run(partial(_accumulate, accelerator, job, feed, batch, group), group)
            state.advance(accelerator, sums, len(batch), sum(feed.tokens[example] for example in batch))
            if isinstance(feed, BatchFeed):
                state.running = feed.running
            if moving is not None:
                moving.follow(state.step, state.trainable)
                state.reference = moving.weights
            state.save_if_due()
    state.read()
    model.eval()
    return TrainLog(tuple(state.log), state.tokens)


def _accumulate(
    accelerator: Accelerator,
    job: TrainingJob[OfflineAlgorithm],
    feed: Feed,
    batch: Sequence[int],
    group: Group,
    max_tokens: int,
) -> Sums:
    """Backward over this process's micro-batches of one effective batch; returns the sums of what the log shows."""
    feed.begin(job.model, batch, max_tokens, group)
    parts = training_passes(job.model, group.share(batch, feed.lengths), feed.lengths, max_tokens=max_tokens)
    return accumulated(accelerator, (_loss(job, feed, part) for part in parts), len(batch), group)


def _loss(job: TrainingJob[OfflineAlgorithm], feed: Feed, examples: Sequence[int]) -> Loss:
    record = feed.record(job.model, examples)
    with plugin_code(f"the loss of {job.algorithm.name}"):
        return job.algorithm(record, **job.parameters)
