"""Answers to validation prompts: greedy or sampled, seeded, in batches of similar length."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from align_bench.models.decode_steps import cache_name, logits_after, steps_of
from align_bench.models.flops import passes
from align_bench.models.kv_cache import can_place, growing_cache
from align_bench.models.layout import can_pack, inner_of, lay_out, passes_over
from align_bench.models.load import generation_ends
from align_bench.models.lora import steady
from align_bench.models.micro_batches import ENOUGH_FOR_A_CPU, fitting
from align_bench.models.positions import positions_of
from align_bench.models.transfer import OnItsWay, on_device, queues
from align_bench.models.unfused import unfused
from align_bench.records import no_update

if TYPE_CHECKING:
    from align_bench.records import Update
    from align_bench.suite.models import Generate

_CONTINUES: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Decoding:
    """How prompts are answered; a suite's `generate:` says the same.

    Attributes:
        max_new_tokens: longest answer.
        temperature: 0 is greedy.
        samples: answers per prompt; more than one need a temperature.
        batch_size: prompts answered at once.
        cuda_graphs: whether steps on a CUDA device are CUDA graphs.
    """

    max_new_tokens: int
    temperature: float = 0.0
    samples: int = 1
    batch_size: int = 64
    cuda_graphs: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One generated answer.

    Attributes:
        ids: generated token ids, the end-of-turn token included when it came.
        finished: whether it came.
        logps: `log π(y_t | x, y_<t)` of each token, nats, where `generate` was asked for them and fp32 computes.
    """

    ids: tuple[int, ...]
    finished: bool
    logps: tuple[float, ...] | None = None


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    settings: Generate | Decoding,
    *,
    seed: int,
    logps: bool = False,
    update: Update = no_update,
) -> list[list[Answer]]:
    """Answer every prompt `settings.samples` times.

    A prompt passes the model once for all its samples, an answer that has ended leaves its batch, and each answer is
    drawn from a stream of its own, so that it depends on no other but by rounding. An answer ends at the latest where
    the model's positions do, and is then unfinished.

    Args:
        model: a causal language model, plain or with an adapter.
        tokenizer: gives the pad and end-of-sequence ids.
        prompts: token ids of rendered prompts.
        settings: lengths, temperature, samples.
        seed: seed of sampling.
        logps: whether answers are to have the log-probabilities of their tokens, at temperature 1. They equal those of
            a pass over the answer but for rounding, so that only fp32 gives them: bf16 rounds a token's by more than an
            update changes it, and its probability ratio would not be 1 before any. Nor are there any where
            transformers' own generation answers.
        update: progress, in prompts.

    Returns:
        For each prompt, in the order given, its answers.
    """
    ends = generation_ends(model, tokenizer)
    pad = tokenizer.pad_token_id
    answers: list[list[Answer]] = [[] for _ in prompts]
    done = 0
    for chosen, tokens in _batches(inner_of(model), prompts, settings):
        batch = [prompts[index] for index in chosen]
        wanted = Decoding(tokens, settings.temperature, settings.samples, cuda_graphs=settings.cuda_graphs)
        measured: list[list[float]] = []
        if not tokens:
            found: list[list[int]] = [[] for _ in range(len(chosen) * settings.samples)]
        elif _continues(model, pad):
            draws = _draws(chosen, wanted, seed) if settings.temperature > 0 else None
            found, measured = _decode(model, pad, ends, batch, wanted, draws, logps=logps)
        else:
            torch.manual_seed(seed * 1_000_003 + done)
            found = _generate(model, pad, ends, batch, wanted)
        for place, ids in enumerate(found):
            answer = _until_end(ids, ends)
            known = replace(answer, logps=tuple(measured[place])) if measured else answer
            answers[chosen[place // settings.samples]].append(known)
        written = [(prompts[index], answer.ids) for index in chosen for answer in answers[index]]
        passes(
            inner_of(model),
            [(prompt, ids[:-1]) for prompt, ids in written],
            predictions=sum(len(ids) for _, ids in written),
            backward=0,
        )
        done += len(chosen)
        update(done, len(prompts))
    return answers


def _batches(
    inner: Any, prompts: Sequence[Sequence[int]], settings: Generate | Decoding
) -> Iterator[tuple[list[int], int]]:
    """Which prompts are answered together, shortest first, and with how many tokens at most.

    Prompts so long that the model's positions end before `max_new_tokens` go with others of their length.
    """
    limit = positions_of(inner)
    rooms = [
        settings.max_new_tokens if limit is None else max(0, min(settings.max_new_tokens, limit - len(prompt)))
        for prompt in prompts
    ]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for room, group in groupby(order, key=lambda index: rooms[index]):
        members = list(group)
        size = fitting(settings.batch_size)
        for start in range(0, len(members), size):
            yield members[start : start + size], room


def _draws(prompts: Sequence[int], settings: Generate | Decoding, seed: int) -> Tensor:
    """A number in (0, 1] for every token of every answer to these prompts, shape [answers, max_new_tokens]."""
    streams = [random.Random(f"answers/{seed}/{one}/{sample}") for one in prompts for sample in range(settings.samples)]
    return torch.tensor([[1 - stream.random() for _ in range(settings.max_new_tokens)] for stream in streams])


@torch.no_grad()
@steady()
def _decode(
    model: Any,
    pad: int,
    ends: frozenset[int],
    prompts: Sequence[Sequence[int]],
    settings: Generate | Decoding,
    draws: Tensor | None = None,
    *,
    logps: bool = False,
) -> tuple[list[list[int]], list[list[float]]]:
    """Ids of `settings.samples` answers to each prompt, each up to its end, and their log-probabilities.

    The latter are an empty list where they are not asked for, or another type than fp32 computes.
    """
    inner = inner_of(model)
    cache = growing_cache(inner)
    logits, mask = _read(inner, prompts, pad, cache)
    logits, mask = (states.repeat_interleave(settings.samples, 0) for states in (logits, mask))
    if settings.samples > 1:
        cache.batch_repeat_interleave(settings.samples)
    writing = steps_of(inner, cache, mask, tokens=settings.max_new_tokens, graphed=settings.cuda_graphs)
    answers: list[list[int]] = [[] for _ in logits]
    steps: list[tuple[list[int], Tensor]] = []  # of each step: the answers in the batch, how likely their tokens were
    rows = list(range(len(answers)))  # the answers in the batch
    drawn = None if draws is None else on_device(draws, inner.device)
    ahead = queues(inner.device)  # then the next step is queued before the host reads which answers have ended
    for step in range(settings.max_new_tokens):
        tokens = _next(logits, settings.temperature, None if drawn is None else drawn[:, step])
        if logps and logits.dtype == torch.float32:
            steps.append((rows, logits.log_softmax(1).gather(1, tokens[:, None]).squeeze(1)))
        coming, last = OnItsWay(tokens), step + 1 == settings.max_new_tokens
        if ahead and not last:
            logits = writing.next(tokens)
        for row, token in zip(rows, coming.read().tolist(), strict=True):
            if not answers[row] or answers[row][-1] not in ends:
                answers[row].append(token)
        going = [place for place, row in enumerate(rows) if answers[row][-1] not in ends]
        if not going or last:
            break
        if writing.worth_leaving(len(going), len(rows)):
            kept = on_device(going, inner.device)
            writing.keep(kept)
            tokens, rows = tokens[kept], [rows[place] for place in going]
            drawn = None if drawn is None else drawn[kept]
            logits = logits[kept] if ahead else logits
        if not ahead:
            logits = writing.next(tokens)
    measured: list[list[float]] = [[] for _ in answers] if steps else []
    for rows, found in steps:
        for row, value in zip(rows, found.tolist(), strict=True):
            measured[row].append(value)
    return answers, [values[: len(ids)] for ids, values in zip(answers, measured, strict=False)]


def _read(inner: Any, prompts: Sequence[Sequence[int]], pad: int, cache: Any) -> tuple[Tensor, Tensor]:
    """Bring prompts into an empty cache, left-padded to one length.

    Returns:
        The logits after each prompt, shape [prompts, vocabulary], and the mask of what the cache holds.
    """
    ids, mask = _left_padded(prompts, pad, inner.device)
    sequences = [(prompt, ()) for prompt in prompts]
    if not (can_pack(inner, ids.shape[1]) and can_place(cache)):
        return logits_after(inner, ids, mask, (mask.cumsum(1) - 1).clamp(min=0), cache), mask
    # Without padding, and with what prompts have in common read once a pass.
    found: dict[int, Tensor] = {}
    for rows in passes_over(inner, sequences, max_tokens=ENOUGH_FOR_A_CPU):
        layout, part = lay_out(inner, [sequences[row] for row in rows]), growing_cache(inner)
        ends = torch.tensor([columns[-1] for columns in layout.columns])
        output = layout.through(inner, inner, use_cache=True, logits_to_keep=ends, **{cache_name(inner): part})
        found |= zip(rows, output.logits[0], strict=True)
        padded = [np.pad(own, (ids.shape[1] - len(own), 0)) for own in layout.columns]  # padding is masked
        columns = torch.from_numpy(np.stack(padded))
        for layer, read in zip(cache.layers, part.layers, strict=True):
            layer.place(rows, columns, read, len(prompts))
    return torch.stack([found[row] for row in range(len(prompts))]), mask


def _next(logits: Tensor, temperature: float, draws: Tensor | None) -> Tensor:
    """The likeliest token of each row, or the one where the cumulated probability reaches the row's draw."""
    if draws is None:
        return logits.argmax(1)
    cumulated = (logits.float() / temperature).softmax(1).cumsum(1)
    return torch.searchsorted(cumulated, draws[:, None] * cumulated[:, -1:]).squeeze(1)


def _continues(model: Any, pad: int) -> bool:
    """Whether `_decode` drives this architecture right: it answers two prompts as transformers' own generation does."""
    inner = inner_of(model)
    if inner not in _CONTINUES:
        prompts, settings = [(1, 2), (3, 4, 1, 2)], Decoding(max_new_tokens=4)
        with unfused():
            expected = _generate(model, pad, frozenset(), prompts, settings)
        try:
            same = _can_leave(inner) and _decode(model, pad, frozenset(), prompts, settings)[0] == expected
        except Exception:  # an architecture may object in any way to a cache or positions of this kind
            same = False
        _CONTINUES[inner] = same
        if not same:
            warnings.warn(
                f"{type(inner).__name__} answers through transformers' own generation (slower; an answer depends on "
                "its batch)",
                stacklevel=2,
            )
    return _CONTINUES[inner]


def _can_leave(inner: Any) -> bool:
    """Whether rows of this architecture's cache can be repeated and selected; a recurrent state's cannot."""
    return all(hasattr(layer, "batch_select_indices") for layer in growing_cache(inner).layers)


def _generate(
    model: Any, pad: int, ends: frozenset[int], prompts: Sequence[Sequence[int]], settings: Generate | Decoding
) -> list[list[int]]:
    from transformers import GenerationConfig

    # transformers fills what is unset here from the model's own generation_config. It is set aside, so that no base
    # brings its repetition penalty or top-p into the comparison.
    ids, mask = _left_padded(prompts, pad, model.device)
    sampled = settings.temperature > 0
    config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        do_sample=sampled,
        num_return_sequences=settings.samples,
        pad_token_id=pad,
        eos_token_id=sorted(ends) or None,
        use_cache=True,
        **({"temperature": settings.temperature, "top_k": 0, "top_p": 1.0} if sampled else {}),
    )
    inner = inner_of(model)
    own, inner.generation_config = inner.generation_config, config
    try:
        with torch.no_grad():
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    finally:
        inner.generation_config = own
    new: list[list[int]] = output[:, ids.shape[1] :].tolist()
    return new


def _left_padded(prompts: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Tensor, Tensor]:
    """Ids and their mask, of shape [prompts, longest]."""
    longest = max(map(len, prompts))
    ids = [[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _until_end(ids: Sequence[int], ends: frozenset[int]) -> Answer:
    for place, token in enumerate(ids):
        if token in ends:
            return Answer(tuple(ids[: place + 1]), True)
    return Answer(tuple(ids), False)
