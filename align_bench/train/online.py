"""Online training: the policy answers prompts, a reward judges the answers, the method's loss updates the policy."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor

from align_bench.api import Experience, Rollouts
from align_bench.data.batches import effective_batches
from align_bench.models.generate import Decoding, generate
from align_bench.models.layout import training_passes
from align_bench.models.logprobs import token_logps
from align_bench.records import silent
from align_bench.train.loop import TrainLog, _accumulated, _Budget, _one_process, _State
from align_bench.train.plugin_code import plugin_code

if TYPE_CHECKING:
    from align_bench.api import Advantages, Algorithm
    from align_bench.records import Tick, TokenRow
    from align_bench.suite.models import Train
    from align_bench.train.loop import Reward


def train_online(
    model: Any,
    tokenizer: Any,
    rows: Sequence[TokenRow],
    algorithm: Algorithm,
    parameters: Mapping[str, Any],
    reward: Reward,
    *,
    learning_rate: float,
    settings: Train,
    seed: int,
    checkpoint: Path | None = None,
    track: Path | None = None,
    tick: Tick = silent,
) -> TrainLog:
    """Train the model's adapter in place, on its own answers to the rows' prompts.

    `settings.batch_size` answers, `samples` to a prompt, make a batch; `updates` optimizer steps are taken on each.
    A checkpoint is written between batches, so that a killed run goes on with the batch that it lost.

    Args:
        model: a frozen base with a trainable adapter; with the adapter off, it is the reference.
        tokenizer: gives the pad and end-of-sequence ids.
        rows: the tokenised training rows; each distinct prompt is used once an epoch.
        algorithm: an online method.
        parameters: its hyper-parameters, resolved, those of the rollouts among them.
        reward: judges answers.
        learning_rate, settings, seed, checkpoint, track, tick: as in `loop.train`.

    Raises:
        PluginError: when the loss or the advantage raises, or is not what the contract asks for.
        ModelError: when started as one of several processes.
    """
    accelerator = _one_process(settings, track)
    prompts = list({row.prompt: row for row in rows}.values())
    per_batch = max(1, settings.batch_size // parameters["samples"])
    batches = effective_batches(len(prompts), per_batch, epochs=settings.epochs, seed=seed)
    if algorithm.critic:
        torch.manual_seed(seed)
        model.value_head = _value_head(model)
    total = len(batches) * parameters["updates"]
    state = _State(model, learning_rate, settings, total, seed)
    if checkpoint is not None:
        state.restore(checkpoint)
    accelerator.init_trackers("train")
    budget = _Budget(settings.micro_batch_tokens)
    saved = started = time.monotonic()
    while state.step < total:
        number = state.step // parameters["updates"]
        batch = _gather(
            model,
            tokenizer,
            [prompts[index] for index in batches[number]],
            algorithm,
            parameters,
            reward,
            max_tokens=settings.micro_batch_tokens,
            seed=seed * 1_000_003 + number,
        )
        for _ in range(parameters["updates"]):
            model.train()
            sums = budget.run(partial(_update, accelerator, model, batch, algorithm, parameters), model)
            sums |= {name: value * len(batch.sequences) for name, value in batch.facts.items()}
            entry = state.advance(accelerator, sums, len(batch.sequences), batch.tokens)
            entry["seconds"] = time.monotonic() - started
            accelerator.log(entry, step=state.step)
            tick(state.step, total, f"reward {entry['reward']:.3f}")
        if checkpoint is not None and time.monotonic() - saved > 60 * settings.checkpoint_minutes:
            state.save(checkpoint)
            saved = time.monotonic()
    accelerator.end_training()
    model.eval()
    return TrainLog(tuple(state.log), state.tokens)


@dataclass(frozen=True, slots=True)
class _Batch:
    """One batch of answers, and what the method made of them."""

    sequences: list[tuple[tuple[int, ...], tuple[int, ...]]]
    experience: Experience
    made: Advantages
    facts: Mapping[str, float]

    @property
    def tokens(self) -> int:
        return sum(len(prompt) + len(answer) for prompt, answer in self.sequences)


def _gather(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[TokenRow],
    algorithm: Algorithm,
    parameters: Mapping[str, Any],
    reward: Reward,
    *,
    max_tokens: int,
    seed: int,
) -> _Batch:
    """Let the policy answer, judge the answers, and measure them under policy and reference."""
    model.eval()
    samples = parameters["samples"]
    wanted = Decoding(
        max_new_tokens=parameters["max_new_tokens"],
        temperature=parameters["temperature"],
        samples=samples,
        batch_size=len(prompts),
    )
    answered = generate(model, tokenizer, [row.prompt for row in prompts], wanted, seed=seed)
    rows = [row for row in prompts for _ in range(samples)]
    answers = [answer for several in answered for answer in several]
    sequences = [(row.prompt, answer.ids) for row, answer in zip(rows, answers, strict=True)]
    scores = torch.tensor(list(reward(rows, [answer.ids for answer in answers])), device=model.device)
    unfinished = torch.tensor([not answer.finished for answer in answers], device=model.device)
    logps, values = _measure(model, sequences, max_tokens, getattr(model, "value_head", None))
    with model.disable_adapter():
        ref_logps, _ = _measure(model, sequences, max_tokens, None)
    lengths = torch.tensor([len(answer.ids) for answer in answers], device=model.device)
    mask = torch.arange(logps.shape[1], device=model.device) < lengths[:, None]
    experience = Experience(
        rewards=scores - parameters["no_end_penalty"] * unfinished,
        group=torch.arange(len(prompts), device=model.device).repeat_interleave(samples),
        mask=mask,
        logps=logps,
        ref_logps=ref_logps,
        values=values,
    )
    with plugin_code(f"the advantage of {algorithm.name}"):
        made = algorithm.advantages(experience, parameters)
    facts = {
        "reward": float(scores.mean()),
        "kl": float((logps - ref_logps).sum(1).mean()),  # nats an answer
        "tokens": float(lengths.float().mean()),
        "unfinished": float(unfinished.float().mean()),
        "entropy": float(-logps[mask].mean()),  # nats a token, estimated from the sampled ones
    }
    if values is not None and made.returns is not None:
        returns = made.returns[mask]
        left = (returns - values[mask]).var(correction=0)
        facts["explained_variance"] = float(1 - left / returns.var(correction=0).clamp(min=1e-12))
    return _Batch(sequences, experience, made, facts)


def _measure(
    model: Any, sequences: Sequence[tuple[Sequence[int], Sequence[int]]], max_tokens: int, value_head: Any
) -> tuple[Tensor, Tensor | None]:
    """`token_logps` of all answers without gradient, over as many passes as memory asks for."""
    longest = max(len(answer) for _, answer in sequences)
    logps = torch.zeros(len(sequences), longest, device=model.device)
    values = None if value_head is None else torch.zeros_like(logps)
    lengths = [len(prompt) + len(answer) for prompt, answer in sequences]
    with torch.no_grad():
        for micro in training_passes(model, range(len(sequences)), lengths, max_tokens=max_tokens):
            found, valued = token_logps(model, [sequences[index] for index in micro], value_head)
            logps[micro, : found.shape[1]] = found
            if values is not None and valued is not None:
                values[micro, : found.shape[1]] = valued
    return logps, values


def _update(
    accelerator: Accelerator,
    model: Any,
    batch: _Batch,
    algorithm: Algorithm,
    parameters: Mapping[str, Any],
    max_tokens: int,
) -> dict[str, float]:
    """Backward over the micro-batches of one batch of answers; returns the sums of what the log shows."""
    lengths = [len(prompt) + len(answer) for prompt, answer in batch.sequences]
    parts = training_passes(model, range(len(lengths)), lengths, max_tokens=max_tokens)
    records = (_record(model, batch, part) for part in parts)
    return _accumulated(accelerator, algorithm, parameters, records, len(lengths))


def _record(model: Any, batch: _Batch, rows: Sequence[int]) -> Rollouts:
    logps, values = token_logps(model, [batch.sequences[row] for row in rows], getattr(model, "value_head", None))
    time = logps.shape[1]
    old = batch.experience

    def picked(tensor: Tensor | None) -> Any:
        return None if tensor is None else tensor[list(rows), :time]

    return Rollouts(
        logps=logps,
        old_logps=picked(old.logps),
        ref_logps=picked(old.ref_logps),
        mask=picked(old.mask),
        advantages=picked(batch.made.advantages),
        returns=picked(batch.made.returns),
        values=values,
        old_values=picked(old.values),
        mean_tokens=float(old.mask.sum()) / len(old.mask),
    )


def _value_head(model: Any) -> torch.nn.Linear:
    """From hidden states to the expected reward, 0 at first; in fp32, like the adapter."""
    width = model.get_base_model().get_output_embeddings().weight.shape[1]
    head = torch.nn.Linear(width, 1, device=model.device)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    return head
