"""Generation: greedy equals the naive loop, sampling is seeded, batches do not matter, answers end where they end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from align_bench.models.generate import Answer, generate
from align_bench.models.load import Precision, find_base, load_policy, load_tokenizer
from align_bench.suite import Generate

PROMPTS = [(5, 6, 7), (20,), (11, 12, 13, 14, 15), (30, 31), (8, 9)]


@pytest.fixture(scope="module")
def loaded(base_folder: Path) -> tuple[Any, Any]:
    base = find_base(str(base_folder))
    return load_policy(base, Precision("fp32", torch.float32, "cpu")), load_tokenizer(base)


def naive_greedy(model: Any, prompt: Sequence[int], length: int, end: int) -> Answer:
    ids = list(prompt)
    for _ in range(length):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == end:
            return Answer(tuple(ids[len(prompt) :]), True)
    return Answer(tuple(ids[len(prompt) :]), False)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_greedy_equals_the_naive_loop_in_any_batch(loaded: tuple[Any, Any], batch_size: int) -> None:
    model, tokenizer = loaded
    settings = Generate(max_new_tokens=8, batch_size=batch_size)
    found = generate(model, tokenizer, PROMPTS, settings, seed=0)
    assert [samples[0] for samples in found] == [
        naive_greedy(model, prompt, 8, tokenizer.eos_token_id) for prompt in PROMPTS
    ]


def test_sampling_is_seeded(loaded: tuple[Any, Any]) -> None:
    settings = Generate(max_new_tokens=8, temperature=1.0, samples=3)
    one, same, other = (generate(*loaded, PROMPTS, settings, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    assert all(len(samples) == 3 for samples in one)
    assert len({answer for samples in one for answer in samples}) > len(PROMPTS)


def test_an_answer_stops_at_its_end(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    first = naive_greedy(model, PROMPTS[0], 1, -1).ids[0]
    tokenizer.eos_token_id, before = first, tokenizer.eos_token_id
    try:
        found = generate(model, tokenizer, PROMPTS[:1], Generate(max_new_tokens=5), seed=0)
    finally:
        tokenizer.eos_token_id = before
    assert found == [[Answer((first,), True)]]


def test_the_bases_own_sampling_settings_do_not_leak(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    plain = generate(model, tokenizer, PROMPTS, Generate(max_new_tokens=8), seed=0)
    model.generation_config.repetition_penalty = 50.0
    try:
        assert generate(model, tokenizer, PROMPTS, Generate(max_new_tokens=8), seed=0) == plain
    finally:
        model.generation_config.repetition_penalty = None


def test_progress_counts_prompts(loaded: tuple[Any, Any]) -> None:
    seen: list[tuple[int, int]] = []
    settings = Generate(max_new_tokens=2, batch_size=2)
    generate(*loaded, PROMPTS, settings, seed=0, tick=lambda done, total, note="": seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]
