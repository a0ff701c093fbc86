"""Generation: greedy equals the naive loop, sampling is seeded, batches do not matter, answers end where they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from align_bench.models import decode_steps, lora
from align_bench.models import generate as generation
from align_bench.models.base import find_base
from align_bench.models.decode_steps import PlainSteps
from align_bench.models.generate import Answer, generate
from align_bench.models.load import add_adapter, load_policy, load_tokenizer
from align_bench.models.logprobs import token_logps
from align_bench.models.precision import Precision
from align_bench.models.transfer import OnItsWay
from align_bench.suite.models import Generate, Lora

PROMPTS = [(5, 6, 7), (20,), (11, 12, 13, 14, 15), (30, 31), (8, 9)]


@pytest.fixture(scope="module")
def loaded(base_folder: Path) -> tuple[Any, Any]:
    base = find_base(str(base_folder))
    return load_policy(base, Precision("fp32", "float32", "cpu")), load_tokenizer(base)


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


@pytest.mark.usefixtures("packs")
def test_prompts_that_begin_alike_or_pass_in_parts_are_answered_as_alone(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = loaded
    system = (40, 41, 42, 43, 44, 45, 46, 47, 48)
    prompts = [*((*system, *prompt) for prompt in PROMPTS), *PROMPTS, PROMPTS[0], system]
    expected = [naive_greedy(model, prompt, 8, tokenizer.eos_token_id) for prompt in prompts]
    for tokens_a_pass in (1024, 30):
        monkeypatch.setattr(generation, "ENOUGH_FOR_A_CPU", tokens_a_pass)
        found = generate(model, tokenizer, prompts, Generate(max_new_tokens=8), seed=0)
        assert [samples[0] for samples in found] == expected


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
    generate(*loaded, PROMPTS, settings, seed=0, update=lambda done, total, note="": seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_an_answer_does_not_depend_on_its_batch(loaded: tuple[Any, Any]) -> None:
    one, three = (
        generate(*loaded, PROMPTS, Generate(max_new_tokens=12, temperature=1.0, samples=3, batch_size=size), seed=5)
        for size in (1, 3)
    )
    assert one == three


@pytest.mark.parametrize(("temperature", "samples"), [(0.0, 1), (1.0, 3)])
def test_answers_written_ahead_of_the_host_are_the_same(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, temperature: float, samples: int
) -> None:
    """As on a GPU: a step is queued before the host reads which answers the one before has ended."""
    settings = Generate(max_new_tokens=10, temperature=temperature, samples=samples)
    free = generate(*loaded, PROMPTS, settings, seed=3)
    ends = frozenset(several[0].ids[1 + 2 * place] for place, several in enumerate(free[:4]))
    monkeypatch.setattr(generation, "generation_ends", lambda *_: ends)
    events: list[str] = []

    def noted(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any) -> Any:
            events.append(what)
            return call(*given)

        return called

    for owner, name in ((PlainSteps, "next"), (OnItsWay, "read"), (PlainSteps, "keep")):
        monkeypatch.setattr(owner, name, noted(name, getattr(owner, name)))
    masks: list[torch.Tensor] = []
    after = decode_steps.logits_after

    def masked(inner: Any, ids: torch.Tensor, mask: torch.Tensor, *given: Any) -> torch.Tensor:
        masks.append(mask)
        return after(inner, ids, mask, *given)

    monkeypatch.setattr(decode_steps, "logits_after", masked)
    found = {}
    for ahead in (False, True):
        for module in (generation, decode_steps):
            monkeypatch.setattr(module, "queues", lambda _, ahead=ahead: ahead)
        events.clear()
        masks.clear()
        found[ahead] = generate(*loaded, PROMPTS, settings, seed=3, logps=True)
        calls = [event for event in events if event != "keep"]
        assert calls[: 2 * 4] == 4 * (["next", "read"] if ahead else ["read", "next"])
        # Behind the last token there may be no position.
        assert (events.count("read"), events.count("next")) == (10, 9)
        assert events.count("keep") > 1
        assert {mask.dim() for mask in masks} == {4 if ahead else 2}  # transformers looks into one of two
    for one, other in zip(chain.from_iterable(found[False]), chain.from_iterable(found[True]), strict=True):
        assert (one.ids, one.finished) == (other.ids, other.finished)
        assert other.logps == pytest.approx(one.logps, abs=1e-5)


def test_draws_follow_the_models_probabilities(loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    logits = model(input_ids=torch.tensor([PROMPTS[0]])).logits[:, -1] * 8
    expected = (logits[0] / 2).softmax(0)
    generator = torch.Generator().manual_seed(0)
    draws = 1 - torch.rand(20_000, generator=generator)
    found = torch.bincount(generation._next(logits.repeat(20_000, 1), 2.0, draws), minlength=len(expected)) / 20_000
    assert 0.5 < float(expected.max()) < 0.999
    assert (found - expected).abs().max() < 4 * (0.25 / 20_000) ** 0.5
    # The ends of the range: the first token that has any probability, and the last one.
    wanted = [int(expected.nonzero()[0]), int(expected.nonzero()[-1])]
    assert generation._next(logits.repeat(2, 1), 2.0, torch.tensor([1e-30, 1.0])).tolist() == wanted


def test_a_prompt_passes_once_and_ended_answers_leave(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, packs: bool
) -> None:
    model, tokenizer = loaded
    settings = Generate(max_new_tokens=6, temperature=1.0, samples=2)
    free = generate(model, tokenizer, PROMPTS, settings, seed=3)
    end = free[0][0].ids[1]
    monkeypatch.setattr(generation, "generation_ends", lambda *_: frozenset({end}))
    seen: list[tuple[int, ...]] = []
    ids = model.get_input_embeddings()
    ids.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    found = generate(model, tokenizer, PROMPTS, settings, seed=3)
    ids._forward_pre_hooks.clear()
    assert found == [[generation._until_end(answer.ids, frozenset({end})) for answer in samples] for samples in free]
    assert seen[0] == ((1, sum(map(len, PROMPTS))) if packs else (len(PROMPTS), max(map(len, PROMPTS))))
    # Ten answers: two that end after any step are more than an eighth and leave; at most one lingers.
    for step, shape in enumerate(seen[1:], start=1):
        going = sum(len(answer.ids) > step for samples in found for answer in samples)
        assert shape[1] == 1
        assert going <= shape[0] <= going + 1


def test_an_adapter_is_cast_once_for_all_tokens(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = find_base(str(base_folder))
    model = add_adapter(load_policy(base, Precision("fp32", "float32", "cpu")), Lora(), seed=0)
    tokenizer = load_tokenizer(base)
    generate(model, tokenizer, PROMPTS, Generate(max_new_tokens=1), seed=0)  # the first one checks the model as well
    counts, cast = [], lora._cast
    for tokens in (2, 6):
        seen: list[Any] = []
        monkeypatch.setattr(lora, "_cast", lambda layers, seen=seen: seen.append(layers) or cast(layers))
        generate(model, tokenizer, PROMPTS, Generate(max_new_tokens=tokens), seed=0)
        counts.append(len(seen))
    assert counts[0] == counts[1] > 0


def test_the_cache_holds_what_transformers_own_holds(loaded: tuple[Any, Any]) -> None:
    from transformers.cache_utils import DynamicLayer

    from align_bench.models.kv_cache import _GrowingLayer

    torch.manual_seed(0)
    ours, theirs = _GrowingLayer(), DynamicLayer()
    for length, rows in ((3, 4), (1, 4), (90, 4), (1, 8), (1, 3), (1, 3)):
        if rows == 8:
            for layer in (ours, theirs):
                layer.batch_repeat_interleave(2)
        if rows == 3 and len(ours.keys) == 8:
            for layer in (ours, theirs):
                layer.batch_select_indices(torch.tensor([6, 0, 3]))
        keys, values = torch.randn(2, rows, 2, length, 5)
        for mine, other in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(mine, other)
    assert ours.get_seq_length() == 97


def small(architecture: str) -> Any:
    """A random model of a few thousand parameters."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    extra = {
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
        "mistral": shape | {"num_key_value_heads": 2, "sliding_window": 4},
        "gemma3_text": shape | {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4},
        "qwen3": shape | {"num_key_value_heads": 2, "head_dim": 8},
        "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
        "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    }[architecture]
    torch.manual_seed(1)
    config = CONFIG_MAPPING[architecture](vocab_size=60, pad_token_id=0, eos_token_id=59, bos_token_id=1, **extra)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("architecture", ["gpt2", "mistral", "gemma3_text", "qwen3", "bloom"])
def test_other_architectures_answer_as_transformers_does(architecture: str) -> None:
    model = small(architecture)
    assert generation._continues(model, 0)
    prompts, settings = [[3, 4, 5, 6, 7, 8, 9], [10], [11, 12]], Generate(max_new_tokens=9)
    expected = generation._generate(model, 0, frozenset({-1}), prompts, settings)
    end = frozenset({expected[1][2]})
    found, _ = generation._decode(model, 0, end, prompts, settings)
    assert [generation._until_end(ids, end) for ids in expected] == [generation._until_end(ids, end) for ids in found]


@pytest.mark.usefixtures("packs")
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_answers_know_how_likely_their_tokens_were(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    """At temperature 1, whatever they were drawn at; some answers end early, and leave their batch at once or later."""
    model, tokenizer = loaded
    settings = Generate(max_new_tokens=12, temperature=temperature, samples=3 if temperature else 1)
    end = generate(model, tokenizer, PROMPTS, settings, seed=5)[0][0].ids[1]
    monkeypatch.setattr(generation, "generation_ends", lambda *_: frozenset({end}))
    found = generate(model, tokenizer, PROMPTS, settings, seed=5, logps=True)
    assert [[replace(one, logps=None) for one in several] for several in found] == generate(
        model, tokenizer, PROMPTS, settings, seed=5
    )
    assert len({len(one.ids) for several in found for one in several}) > 1
    for prompt, several in zip(PROMPTS, found, strict=True):
        for one in several:
            expected, _ = token_logps(model, [(prompt, one.ids)])
            assert one.logps == pytest.approx(expected[0].tolist(), rel=1e-5, abs=1e-5)


def test_only_fp32_says_how_likely_they_were(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "_continues", lambda *_: True)
    base = find_base(str(base_folder))
    model = load_policy(base, Precision("bf16", "bfloat16", "cpu"))
    found = generate(model, load_tokenizer(base), PROMPTS, Generate(max_new_tokens=3), seed=0, logps=True)
    assert all(one.logps is None for several in found for one in several)


def test_what_has_no_such_cache_goes_through_transformers(loaded: tuple[Any, Any]) -> None:
    model = small("mamba")
    with pytest.warns(UserWarning, match="through transformers' own generation"):
        found = generate(model, loaded[1], [(3, 4), (5,)], Generate(max_new_tokens=4), seed=0, logps=True)
    assert [[answer.logps for answer in samples] for samples in found] == [[None], [None]]
