"""The one training loop: effective batches, gradient accumulation over token-budgeted micro-batches, checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor

from align_bench.data.batches import effective_batches
from align_bench.errors import ModelError, PluginError
from align_bench.models.layout import training_passes
from align_bench.records import TokenRow, silent
from align_bench.store.files import make_folder, replacing
from align_bench.train.auxiliary import attach, companion_of
from align_bench.train.feeds import FEEDS
from align_bench.train.plugin_code import plugin_code

if TYPE_CHECKING:
    from align_bench.api import Algorithm, Loss
    from align_bench.records import Tick
    from align_bench.suite.models import Train
    from align_bench.train.feeds import Feed, Reference

# From rows of the training table and the ids of an answer to each to one number each, in the reward's unit.
Reward = Callable[[Sequence[TokenRow], Sequence[Sequence[int]]], Sequence[float]]


@dataclass(frozen=True, slots=True)
class TrainLog:
    """What a training did.

    Attributes:
        steps: a mapping for each optimizer step: `step`, `loss`, `learning_rate`, `gradient_norm`, `seconds`, and the
            batch means of rewards and of the method's own metrics, and the correlations that it names.
        tokens: tokens of prompts and answers that training examples brought (padding excluded).
    """

    steps: tuple[Mapping[str, float], ...]
    tokens: int


def train(
    model: Any,
    rows: Sequence[TokenRow],
    algorithm: Algorithm,
    parameters: Mapping[str, Any],
    *,
    learning_rate: float,
    settings: Train,
    seed: int,
    reference: Reference | None = None,
    checkpoint: Path | None = None,
    track: Path | None = None,
    tick: Tick = silent,
) -> TrainLog:
    """Train the model's adapter in place, with the companion that the method declares.

    The gradient of a step is that of the mean loss over its effective batch, however that is cut into micro-batches.

    Args:
        model: a frozen base with a trainable adapter.
        rows: the tokenised training rows.
        algorithm: the method.
        parameters: its hyper-parameters, resolved.
        learning_rate: peak learning rate of AdamW.
        settings: batch size, schedule and the like.
        seed: seed of row order and dropout.
        reference: base log-probabilities by column (`chosen`, `rejected`, `mismatched_…`), each of shape [rows].
        checkpoint: file to go on from after a kill; written every `settings.checkpoint_minutes`, removed by the caller.
        track: folder for the logs of `settings.trackers`.
        tick: progress, once per optimizer step.

    Raises:
        PluginError: when the loss raises, returns something else than a Loss, or is not finite.
        DataError: when the rows do not fit the method's data kind.
        ModelError: when started as one of several processes.
    """
    accelerator = _one_process(settings, track)
    if algorithm.auxiliary is not None:
        attach(model, algorithm.auxiliary(parameters), seed=seed)
    feed = FEEDS[algorithm.data](rows, reference)
    batches = effective_batches(len(feed.lengths), settings.batch_size, epochs=settings.epochs, seed=seed)
    state = _State(model, learning_rate, settings, len(batches), seed)
    if checkpoint is not None:
        state.restore(checkpoint)
    accelerator.init_trackers("train")
    model.train()
    budget = _Budget(settings.micro_batch_tokens)
    saved = started = time.monotonic()
    while state.step < len(batches):
        batch = batches[state.step]
        sums = budget.run(partial(_accumulate, accelerator, model, feed, algorithm, parameters, batch), model)
        entry = state.advance(accelerator, sums, len(batch), sum(feed.tokens[example] for example in batch))
        entry["seconds"] = time.monotonic() - started
        accelerator.log(entry, step=state.step)
        tick(state.step, len(batches), f"loss {entry['loss']:.3f}")
        if checkpoint is not None and time.monotonic() - saved > 60 * settings.checkpoint_minutes:
            state.save(checkpoint)
            saved = time.monotonic()
    accelerator.end_training()
    model.eval()
    return TrainLog(tuple(state.log), state.tokens)


def _one_process(settings: Train, track: Path | None) -> Accelerator:
    accelerator = Accelerator(mixed_precision="no", log_with=list(settings.trackers) or None, project_dir=track)
    if accelerator.num_processes > 1:
        raise ModelError(
            "training runs in one process so far", fix="start align-bench without accelerate launch or torchrun"
        )
    return accelerator


class _Budget:
    """Padded tokens per micro-batch; halved whenever the device runs out of memory, and the step done again."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def run(self, attempt: Callable[[int], dict[str, float]], model: Any) -> dict[str, float]:
        while True:
            try:
                return attempt(self.tokens)
            except torch.OutOfMemoryError:
                if self.tokens <= 128:
                    raise
            self.tokens //= 2
            model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()


def _accumulate(
    accelerator: Accelerator,
    model: Any,
    feed: Feed,
    algorithm: Algorithm,
    parameters: Mapping[str, Any],
    batch: Sequence[int],
    max_tokens: int,
) -> dict[str, float]:
    """Backward over the micro-batches of one effective batch; returns the sums of what the log shows."""
    feed.begin(model, batch, max_tokens)
    parts = training_passes(model, batch, feed.lengths, max_tokens=max_tokens)
    return _accumulated(accelerator, algorithm, parameters, (feed.record(model, part) for part in parts), len(batch))


def _accumulated(
    accelerator: Accelerator, algorithm: Algorithm, parameters: Mapping[str, Any], records: Iterable[Any], examples: int
) -> dict[str, float]:
    sums: dict[str, float] = {}
    correlated: dict[str, list[Tensor]] = {}
    for record in records:
        loss = _loss(algorithm, record, parameters)
        accelerator.backward(loss.values.sum() / examples)
        for name, value in _logged(loss).items():
            sums[name] = sums.get(name, 0.0) + value
        for name, values in loss.correlations.items():
            correlated.setdefault(name, []).append(torch.stack([value.detach().float() for value in values]))
    found = {name: float(torch.cat(parts, dim=1).corrcoef()[0, 1]) for name, parts in correlated.items()}
    return sums | {name: value * examples for name, value in found.items() if math.isfinite(value)}


def _loss(algorithm: Algorithm, record: Any, parameters: Mapping[str, Any]) -> Loss:
    with plugin_code(f"the loss of {algorithm.name}"):
        return algorithm(record, **parameters)


def _logged(loss: Loss) -> dict[str, float]:
    """Sums over the micro-batch of the loss, the rewards and the method's own metrics."""
    values: dict[str, Tensor] = {"loss": loss.values, **loss.metrics}
    if loss.chosen_rewards is not None and loss.rejected_rewards is not None:
        margin = loss.chosen_rewards - loss.rejected_rewards
        values |= {"chosen_reward": loss.chosen_rewards, "rejected_reward": loss.rejected_rewards, "margin": margin}
        values["accuracy"] = (margin > 0).float() + 0.5 * (margin == 0).float()
    if loss.rewards is not None:
        values["reward"] = loss.rewards
    return {name: float(value.detach().sum()) for name, value in values.items()}


def _groups(model: Any, learning_rate: float) -> list[dict[str, Any]]:
    """The trained parameters by their peak learning rate: the adapter first, then its companion where one learns."""
    companion = companion_of(model)
    beside = [] if companion is None else list(companion.parameters())
    known = {id(parameter) for parameter in beside}
    adapter = [value for value in model.parameters() if value.requires_grad and id(value) not in known]
    groups: list[dict[str, Any]] = [{"params": adapter}]
    if companion is not None and beside:
        groups.append({"params": beside, "lr": learning_rate * companion.learning_rate_factor})
    return groups


class _State:
    """All that a step changes, so that a checkpoint of it is the whole truth."""

    def __init__(self, model: Any, learning_rate: float, settings: Train, total: int, seed: int) -> None:
        from transformers import get_scheduler

        self.trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.settings = settings
        self.optimizer = torch.optim.AdamW(
            _groups(model, learning_rate), lr=learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.999)
        )
        warmup = math.ceil(settings.warmup * total)
        name = "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
        self.scheduler = get_scheduler(name, self.optimizer, num_warmup_steps=warmup, num_training_steps=total)
        self.step = 0
        self.tokens = 0
        self.log: list[dict[str, float]] = []
        torch.manual_seed(seed)

    def advance(
        self, accelerator: Accelerator, sums: Mapping[str, float], examples: int, tokens: int
    ) -> dict[str, float]:
        """One optimizer step from the accumulated gradients; returns its log entry."""
        norm = float(accelerator.clip_grad_norm_(list(self.trainable.values()), self.settings.max_grad_norm))
        means = {name: value / examples for name, value in sums.items()}
        if not (math.isfinite(means["loss"]) and math.isfinite(norm)):
            raise PluginError(
                f"loss {means['loss']} and gradient norm {norm} at step {self.step + 1}: training diverged",
                fix="lower its learning_rate, or check the loss at extreme margins",
            )
        rate = self.scheduler.get_last_lr()[0]
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += tokens
        entry = {"step": self.step, **means, "learning_rate": rate, "gradient_norm": norm}
        self.log.append(entry)
        return entry

    def save(self, path: Path) -> None:
        make_folder(path.parent)
        content = {
            "weights": {name: parameter.detach().cpu() for name, parameter in self.trainable.items()},
            "optimizer": self.optimizer.state_dict(),
            "scheduler": json.dumps(self.scheduler.state_dict()),
            "step": self.step,
            "tokens": self.tokens,
            "log": json.dumps(self.log),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        with replacing(path) as temporary:
            torch.save(content, temporary)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint if there is one; `weights_only` keeps it data."""
        if not path.is_file():
            return
        content = torch.load(path, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                parameter.copy_(content["weights"][name])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scheduler.load_state_dict(json.loads(content["scheduler"]))
        self.step, self.tokens = content["step"], content["tokens"]
        self.log = json.loads(content["log"])
        torch.set_rng_state(content["random"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(content["random_cuda"])
