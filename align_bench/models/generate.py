"""Answers to validation prompts: greedy or sampled, seeded, in batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from align_bench.models.load import generation_ends
from align_bench.records import Tick, silent
from align_bench.suite import Generate


@dataclass(frozen=True, slots=True)
class Answer:
    """One generated answer.

    Attributes:
        ids: generated token ids, the end-of-turn token included when it came.
        finished: whether it came.
    """

    ids: tuple[int, ...]
    finished: bool


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    settings: Generate,
    *,
    seed: int,
    tick: Tick = silent,
) -> list[list[Answer]]:
    """Answer every prompt `settings.samples` times.

    Args:
        model: a causal language model, plain or with an adapter.
        tokenizer: gives the pad and end-of-sequence ids.
        prompts: token ids of rendered prompts.
        settings: lengths, temperature, samples.
        seed: seed of sampling; each batch draws from its own stream.
        tick: progress, in prompts.

    Returns:
        For each prompt, in the order given, its answers.
    """
    ends = generation_ends(model, tokenizer)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: list[list[Answer]] = [[] for _ in prompts]
    for start in range(0, len(order), settings.batch_size):
        chosen = order[start : start + settings.batch_size]
        torch.manual_seed(seed * 1_000_003 + start)
        batch = _generate(model, tokenizer.pad_token_id, ends, [prompts[index] for index in chosen], settings)
        for place, ids in enumerate(batch):
            answers[chosen[place // settings.samples]].append(_until_end(ids, ends))
        tick(start + len(chosen), len(order))
    return answers


def _generate(
    model: Any, pad: int, ends: frozenset[int], prompts: Sequence[Sequence[int]], settings: Generate
) -> list[list[int]]:
    from transformers import GenerationConfig

    # transformers fills what is unset here from the model's own generation_config. It is set aside, so that no base
    # brings its repetition penalty or top-p into the comparison.
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    sampled = settings.temperature > 0
    config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        do_sample=sampled,
        num_return_sequences=settings.samples,
        pad_token_id=pad,
        eos_token_id=sorted(ends),
        use_cache=True,
        **({"temperature": settings.temperature, "top_k": 0, "top_p": 1.0} if sampled else {}),
    )
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    own, inner.generation_config = inner.generation_config, config
    try:
        with torch.no_grad():
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    finally:
        inner.generation_config = own
    new: list[list[int]] = output[:, longest:].tolist()
    return new


def _until_end(ids: Sequence[int], ends: frozenset[int]) -> Answer:
    for place, token in enumerate(ids):
        if token in ends:
            return Answer(tuple(ids[: place + 1]), True)
    return Answer(tuple(ids), False)
