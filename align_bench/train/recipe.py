"""Trainings that a recipe takes over: its job, and a look at what it did with it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from accelerate import PartialState

from align_bench.api import Answer, AnswerJob, Pair, PairJob, Prompt, PromptJob
from align_bench.data.batches import effective_batches
from align_bench.errors import ModelError, PluginError
from align_bench.models.activation_checkpointing import keep_activations
from align_bench.models.flops import uncounted
from align_bench.models.micro_batches import ENOUGH_ELSEWHERE
from align_bench.models.positions import positions_of
from align_bench.train.feeds import FEEDS, PairFeed, ScoreFeed, UnpairedFeed, mismatched_sequence
from align_bench.train.job import TrainLog
from align_bench.train.plugin_code import plugin_code

if TYPE_CHECKING:
    from align_bench.api import Recipe
    from align_bench.models.precision import Precision
    from align_bench.records import LogStep, TokenRow, Update
    from align_bench.suite.models import Train
    from align_bench.train.feeds import Feed
    from align_bench.train.job import Reward, TrainingJob


def train_by_recipe(
    job: TrainingJob[Recipe], tokenizer: Any, precision: Precision, scratch: Path, reward: Reward | None = None
) -> TrainLog:
    """Train the model's adapter in place, on the rows and in the order in which `train` would.

    A killed recipe starts its training again: foreign trainers keep checkpoints of their own kind, if any.

    Args:
        job: the training.
        tokenizer: a copy that the recipe may change.
        precision: how the model was loaded.
        scratch: an empty folder that the caller deletes.
        reward: judges the answers of a recipe that reads rollouts; None for all others.

    Raises:
        PluginError: when the recipe raises (but for a device out of memory), logs another number of steps than was
            planned, or a number that is not finite.
        DataError: when the rows do not fit the recipe's data kind.
        ModelError: when started as one of several processes.
    """
    if PartialState().num_processes > 1:
        raise ModelError(
            "a recipe trains in one process",
            fix="start align-bench without accelerate launch or torchrun; --jobs auto trains a cell on each GPU",
        )
    recipe, settings = job.algorithm, job.settings
    feed = _PromptFeed(job.rows) if recipe.data == "rollouts" else FEEDS[recipe.data](job.rows, None)
    batches = effective_batches(len(feed.lengths), settings.batch_size, epochs=settings.epochs, seed=job.seed)
    log = _Log(recipe.name, len(batches), job.log, job.update)
    shared: _Shared = {
        "model": job.model,
        "tokenizer": tokenizer,
        "micro_batch_tokens": settings.micro_batch_tokens or ENOUGH_ELSEWHERE,
        "batches": batches,
        "learning_rate": job.learning_rate,
        "settings": settings,
        "seed": job.seed,
        "device": precision.device,
        "bf16": precision.compute == "bfloat16",
        "scratch": scratch,
        "log": log,
    }
    uncounted()
    try:
        with plugin_code(f"the recipe {recipe.name}"):
            recipe(_recipe_job(feed, shared, job.rows, reward), job.parameters)
    finally:
        keep_activations(job.model)  # the base goes on to the next training
    if len(log.steps) != len(batches):
        raise PluginError(
            f"the recipe {recipe.name} logged {len(log.steps)} steps, expected {len(batches)}",
            fix="take one optimizer step for each of job.batches, and call job.log once for each",
        )
    job.model.eval()
    planned = sum(feed.tokens[example] for batch in batches for example in batch)
    return TrainLog(tuple(log.steps), int(log.steps[-1].get("tokens", planned)))


class _Shared(TypedDict):
    """What a job holds whatever its examples are."""

    model: Any
    tokenizer: Any
    micro_batch_tokens: int
    batches: Sequence[Sequence[int]]
    learning_rate: float
    settings: Train
    seed: int
    device: str
    bf16: bool
    scratch: Path
    log: Callable[[Mapping[str, float]], None]


def _recipe_job(
    feed: Feed | _PromptFeed, shared: _Shared, rows: Sequence[TokenRow], reward: Reward | None
) -> PairJob | AnswerJob | PromptJob:
    """The job of the feed's examples, under its own numbers.

    `lengths` are for a trainer that gives each answer a prompt of its own.
    """
    if isinstance(feed, _PromptFeed):
        assert reward is not None, "the stage finds one for every recipe that reads rollouts"
        score = reward
        return PromptJob(
            **shared,
            examples=[Prompt(row.prompt) for row in rows],
            lengths=feed.lengths,
            reward=lambda place, answer: score([rows[place]], [answer])[0],
        )
    if isinstance(feed, UnpairedFeed):
        limit = positions_of(shared["model"])
        answers = [
            Answer(
                prompt=feed.rows[index].prompt,
                answer=getattr(feed.rows[index], side),
                desirable=side == "chosen",
                mismatched=mismatched_sequence(feed.rows, feed.partner, index, side, limit=limit)[1],
            )
            for index, side in feed.examples
        ]
        return AnswerJob(**shared, examples=answers, lengths=[len(one.prompt) + len(one.answer) for one in answers])
    assert isinstance(feed, PairFeed | ScoreFeed), "RecipeData names no other"
    pairs = [Pair(row.prompt, row.chosen, row.rejected) for row in feed.rows]
    lengths = [2 * (len(pair.prompt) + max(len(pair.chosen), len(pair.rejected))) for pair in pairs]
    return PairJob(**shared, examples=pairs, lengths=lengths)


class _PromptFeed:
    """The prompts of all rows, for recipes that write the answers themselves."""

    def __init__(self, rows: Sequence[TokenRow]) -> None:
        self.lengths: Sequence[int] = [len(row.prompt) for row in rows]
        self.tokens: Sequence[int] = self.lengths


class _Log:
    """Numbers the steps that a recipe logs and shows them like those of the training loop."""

    def __init__(self, name: str, total: int, log: LogStep, update: Update) -> None:
        self.name = name
        self.total = total
        self.log = log
        self.update = update
        self.steps: list[Mapping[str, float]] = []
        self.started = time.monotonic()

    def __call__(self, numbers: Mapping[str, float]) -> None:
        step = len(self.steps) + 1
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(numbers.get(name, math.nan if name == "loss" else 0.0)):
                raise PluginError(
                    f"the recipe {self.name} logged {name} {numbers.get(name)} at step {step}, expected a number",
                    fix="lower its learning_rate, if training diverged",
                )
        entry = {"step": step, **numbers, "seconds": time.monotonic() - self.started}
        self.steps.append(entry)
        self.log(entry)
        self.update(step, self.total, f"loss {numbers['loss']:.3f}")
