"""Online training: the policy answers prompts, a reward judges the answers, the method's loss updates the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from align_bench.api import CriticAdvantages, CriticExperience, CriticRollouts, Experience, Rollouts
from align_bench.data.batches import effective_batches
from align_bench.models.generate import Decoding, generate
from align_bench.models.layout import passes_over
from align_bench.models.logprobs import token_logps
from align_bench.models.start import as_reference
from align_bench.models.transfer import on_device
from align_bench.train.job import TrainLog
from align_bench.train.plugin_code import plugin_code
from align_bench.train.steps import State, Sums, accumulated, budget_of, one_process

if TYPE_CHECKING:
    from align_bench.api import Advantages, Loss, OnlineAlgorithm
    from align_bench.models.generate import Answer
    from align_bench.records import TokenRow
    from align_bench.train.job import Reward, TrainingJob


def train_online(job: TrainingJob[OnlineAlgorithm], tokenizer: Any, reward: Reward) -> TrainLog:
    """Train the model's adapter in place, on its own answers to the rows' prompts.

    `settings.batch_size` answers, `samples` to a prompt, make a batch; `updates` optimizer steps are taken on each.
    A checkpoint is written between batches, so that a killed run goes on with the batch that it lost.

    Args:
        job: the training. Each distinct prompt of its rows is used once per epoch.
        tokenizer: gives the pad and end-of-sequence ids.
        reward: judges answers.

    Raises:
        PluginError: when the loss or the advantage raises, or is not what the contract asks for.
        ModelError: when started as one of several processes.
    """
    accelerator, model, settings = one_process(), job.model, job.settings
    rollout = job.algorithm.settings(job.parameters)
    prompts = list({row.prompt: row for row in job.rows}.values())
    per_batch = max(1, settings.batch_size // rollout.samples)
    batches = effective_batches(len(prompts), per_batch, epochs=settings.epochs, seed=job.seed)
    if job.algorithm.critic:
        torch.manual_seed(job.seed)
        model.value_head = _value_head(model)
    total = len(batches) * rollout.updates
    state = State(job, total, shown="reward")
    with budget_of(job, state) as budget:
        while state.step < total:
            number = state.step // rollout.updates
            state.read()  # weights that have diverged must not write: a GPU would be lost to a token that is none
            asked = [prompts[index] for index in batches[number]]
            batch = _gather(job, tokenizer, reward, asked, seed=job.seed * 1_000_003 + number)
            for _ in range(rollout.updates):
                model.train()
                sums = budget.run(partial(_update, accelerator, job, batch))
                state.advance(accelerator, sums, len(batch.sequences), batch.tokens, batch.facts)
            state.save_if_due()
    state.read()
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
    job: TrainingJob[OnlineAlgorithm], tokenizer: Any, reward: Reward, prompts: Sequence[TokenRow], *, seed: int
) -> _Batch:
    """Let the policy answer, judge the answers, and measure them under policy and reference."""
    model, rollout, max_tokens = job.model, job.algorithm.settings(job.parameters), job.pass_tokens
    model.eval()
    wanted = Decoding(
        max_new_tokens=rollout.max_new_tokens,
        temperature=rollout.temperature,
        samples=rollout.samples,
        batch_size=len(prompts),
        cuda_graphs=job.settings.cuda_graphs,
    )
    critic = getattr(model, "value_head", None)
    answered = generate(model, tokenizer, [row.prompt for row in prompts], wanted, seed=seed, logps=critic is None)
    rows = [row for row in prompts for _ in range(rollout.samples)]
    answers = [answer for several in answered for answer in several]
    sequences = [(row.prompt, answer.ids) for row, answer in zip(rows, answers, strict=True)]
    scores = on_device(list(reward(rows, [answer.ids for answer in answers])), model.device)
    unfinished = on_device([not answer.finished for answer in answers], model.device)
    logps, values = _written(answers, model.device), None
    if logps is None:
        logps, values = _measure(model, sequences, max_tokens, critic)
    with as_reference(model, job.reference):
        ref_logps, _ = _measure(model, sequences, max_tokens, None)
    lengths = on_device([len(answer.ids) for answer in answers], model.device)
    rewards = scores - rollout.missing_eos_penalty * unfinished
    group = torch.arange(len(prompts), device=model.device).repeat_interleave(rollout.samples)
    mask = torch.arange(logps.shape[1], device=model.device) < lengths[:, None]
    if values is None:
        experience = Experience(rewards, group, mask, logps, ref_logps)
    else:
        experience = CriticExperience(rewards, group, mask, logps, ref_logps, values)
    with plugin_code(f"the advantage of {job.algorithm.name}"):
        made = job.algorithm.advantages(experience, job.parameters)
    found = {
        "reward": scores.mean(),
        "kl": (logps - ref_logps).sum(1).mean(),  # nats per answer
        "tokens": lengths.float().mean(),
        "unfinished": unfinished.float().mean(),
        "entropy": -logps[mask].mean(),  # nats per token, estimated from the sampled ones
    }
    if values is not None and isinstance(made, CriticAdvantages):
        returns = made.returns[mask]
        left = (returns - values[mask]).var(correction=0)
        found["explained_variance"] = 1 - left / returns.var(correction=0).clamp(min=1e-12)
    facts = dict(zip(found, torch.stack([value.float() for value in found.values()]).tolist(), strict=True))
    return _Batch(sequences, experience, made, facts)


def _written(answers: Sequence[Answer], device: torch.device) -> Tensor | None:
    """The log-probabilities that answers were written with, as of `token_logps`; None where one does not have them."""
    known = [torch.tensor(answer.logps) for answer in answers if answer.logps is not None]
    return pad_sequence(known, batch_first=True).to(device) if len(known) == len(answers) else None


def _measure(
    model: Any, sequences: Sequence[tuple[Sequence[int], Sequence[int]]], max_tokens: int, value_head: Any
) -> tuple[Tensor, Tensor | None]:
    """`token_logps` of all answers without gradient, over as many passes as memory asks for."""
    longest = max(len(answer) for _, answer in sequences)
    logps = torch.zeros(len(sequences), longest, device=model.device)
    values = None if value_head is None else torch.zeros_like(logps)
    with torch.no_grad():
        for micro in passes_over(model, sequences, max_tokens=max_tokens):
            found, valued = token_logps(model, [sequences[index] for index in micro], value_head)
            places = on_device(micro, logps.device)
            logps[places, : found.shape[1]] = found
            if values is not None and valued is not None:
                values[places, : found.shape[1]] = valued
    return logps, values


def _update(accelerator: Accelerator, job: TrainingJob[OnlineAlgorithm], batch: _Batch, max_tokens: int) -> Sums:
    """Backward over the micro-batches of one batch of answers; returns the sums of what the log shows."""
    # The answers to a prompt go together, so that it passes once for all of them.
    parts = passes_over(job.model, batch.sequences, max_tokens=max_tokens)
    return accumulated(accelerator, (_loss(job, batch, part) for part in parts), len(batch.sequences))


def _loss(job: TrainingJob[OnlineAlgorithm], batch: _Batch, rows: Sequence[int]) -> Loss:
    record = _record(job.model, batch, rows)
    with plugin_code(f"the loss of {job.algorithm.name}"):
        return job.algorithm(record, **job.parameters)


def _record(model: Any, batch: _Batch, rows: Sequence[int]) -> Rollouts:
    logps, values = token_logps(model, [batch.sequences[row] for row in rows], getattr(model, "value_head", None))
    time = logps.shape[1]
    old, made = batch.experience, batch.made

    places = on_device(rows, logps.device)

    def picked(tensor: Tensor) -> Tensor:
        return tensor[places, :time]

    given = (logps, picked(old.logps), picked(old.ref_logps), picked(old.mask), picked(made.advantages))
    mean_tokens = sum(len(answer) for _, answer in batch.sequences) / len(batch.sequences)
    if values is None or not (isinstance(old, CriticExperience) and isinstance(made, CriticAdvantages)):
        return Rollouts(*given, mean_tokens)
    return CriticRollouts(*given, mean_tokens, values, picked(old.values), picked(made.returns))


def _value_head(model: Any) -> torch.nn.Linear:
    """From hidden states to the expected reward, 0 at first; in fp32, like the adapter."""
    width = model.get_base_model().get_output_embeddings().weight.shape[1]
    head = torch.nn.Linear(width, 1, device=model.device)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    return head
