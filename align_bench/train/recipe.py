"""Trainings that a recipe takes over: its job, and a look at what it did with it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState

from align_bench.api import Answer, Job, Pair, Prompt
from align_bench.data.batches import effective_batches
from align_bench.errors import AlignBenchError, ModelError, PluginError
from align_bench.models.flops import uncounted
from align_bench.records import silent
from align_bench.train.feeds import FEEDS, PairFeed, ScoreFeed, UnpairedFeed, mismatched_sequence
from align_bench.train.loop import TrainLog

if TYPE_CHECKING:
    from align_bench.api import Recipe
    from align_bench.models.precision import Precision
    from align_bench.records import Tick, TokenRow
    from align_bench.suite.models import Train
    from align_bench.train.feeds import Feed
    from align_bench.train.loop import Reward


def train_by_recipe(
    model: Any,
    tokenizer: Any,
    rows: Sequence[TokenRow],
    recipe: Recipe,
    parameters: Mapping[str, Any],
    *,
    learning_rate: float,
    settings: Train,
    precision: Precision,
    seed: int,
    scratch: Path,
    reward: Reward | None = None,
    track: Path | None = None,
    tick: Tick = silent,
) -> TrainLog:
    """Train the model's adapter in place, on the rows and in the order in which `train` would.

    A killed recipe starts its training again: foreign trainers keep checkpoints of their own kind, if any.

    Args:
        model, rows, parameters, learning_rate, settings, seed, tick: as in `train.loop.train`.
        tokenizer: a copy that the recipe may change.
        recipe: the method.
        precision: how the model was loaded.
        scratch: an empty folder that the caller deletes.
        reward: judges the answers of a recipe that reads rollouts.
        track: folder for the logs of `settings.trackers`.

    Raises:
        PluginError: when the recipe raises (but for a device out of memory), logs another number of steps than was
            planned, or a number that is not finite.
        DataError: when the rows do not fit the recipe's data kind.
        ModelError: when started as one of several processes.
    """
    if PartialState().num_processes > 1:
        raise ModelError(
            "a recipe trains in one process", fix="start align-bench without accelerate launch or torchrun"
        )
    feed = _PromptFeed(rows) if recipe.data == "rollouts" else FEEDS[recipe.data](rows, None)
    batches = effective_batches(len(feed.lengths), settings.batch_size, epochs=settings.epochs, seed=seed)
    log = _Log(recipe.name, len(batches), _trackers(settings, track), tick)
    examples = _examples(feed)
    job = Job(
        model=model,
        tokenizer=tokenizer,
        examples=examples,
        lengths=[_padded(example) for example in examples],
        batches=batches,
        learning_rate=learning_rate,
        settings=settings,
        seed=seed,
        device=precision.device,
        bf16=precision.compute == "bfloat16",
        scratch=scratch,
        log=log,
        reward=None if reward is None else lambda place, answer: reward([rows[place]], [answer])[0],
    )
    uncounted()
    try:
        recipe.function(job, **parameters)
    except (AlignBenchError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a plugin may raise anything
        raise PluginError(f"the recipe {recipe.name} raised {type(error).__name__}: {error}") from error
    finally:
        log.close()
    if len(log.steps) != len(batches):
        raise PluginError(
            f"the recipe {recipe.name} logged {len(log.steps)} steps, expected {len(batches)}",
            fix="take one optimizer step for each of job.batches, and call job.log once for each",
        )
    model.eval()
    planned = sum(feed.tokens[example] for batch in batches for example in batch)
    return TrainLog(tuple(log.steps), int(log.steps[-1].get("tokens", planned)))


def _padded(example: Pair | Answer | Prompt) -> int:
    """Padded tokens of an example for a trainer that gives each answer a prompt of its own."""
    if isinstance(example, Pair):
        return 2 * (len(example.prompt) + max(len(example.chosen), len(example.rejected)))
    return len(example.prompt) + (len(example.answer) if isinstance(example, Answer) else 0)


class _PromptFeed:
    """The prompts of all rows, for recipes that write the answers themselves."""

    def __init__(self, rows: Sequence[TokenRow]) -> None:
        self.prompts = [Prompt(row.prompt) for row in rows]
        self.lengths: Sequence[int] = [len(row.prompt) for row in rows]
        self.tokens: Sequence[int] = self.lengths


def _examples(feed: Feed | _PromptFeed) -> Sequence[Pair] | Sequence[Answer] | Sequence[Prompt]:
    """The feed's examples under its own numbers."""
    if isinstance(feed, _PromptFeed):
        return feed.prompts
    if isinstance(feed, UnpairedFeed):
        return [
            Answer(
                prompt=feed.rows[index].prompt,
                answer=getattr(feed.rows[index], side),
                desirable=side == "chosen",
                mismatched=mismatched_sequence(feed.rows, feed.partner, index, side)[1],
            )
            for index, side in feed.examples
        ]
    assert isinstance(feed, PairFeed | ScoreFeed), "RecipeData names no other"
    return [Pair(row.prompt, row.chosen, row.rejected) for row in feed.rows]


def _trackers(settings: Train, folder: Path | None) -> list[Any]:
    # By themselves: an Accelerator would hold the process to its precision, and the recipe may want another.
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    return [LOGGER_TYPE_TO_CLASS[name]("train", logging_dir=folder) for name in settings.trackers]


class _Log:
    """Numbers the steps that a recipe logs and shows them like those of the training loop."""

    def __init__(self, name: str, total: int, trackers: Sequence[Any], tick: Callable[..., None]) -> None:
        self.name = name
        self.total = total
        self.trackers = trackers
        self.tick = tick
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
        for tracker in self.trackers:
            tracker.log(entry, step=step)
        self.tick(step, self.total, f"loss {numbers['loss']:.3f}")

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.finish()
