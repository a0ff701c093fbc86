"""What numbers do not depend on: the order of rows, the size of passes, threads. In fp32, beyond 1e-5 in scores.

Of answers at temperature 0 none changes, but where the two likeliest tokens lie closer than that.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from align_bench.evaluate.preference import table_logps, table_scores
from align_bench.judge.reward_model import score_answers
from align_bench.models.base import find_base
from align_bench.models.generate import Decoding, generate
from align_bench.models.load import load_policy, load_scorer, load_tokenizer
from align_bench.models.micro_batches import half_as_much
from align_bench.models.precision import Precision
from align_bench.records import TokenRow

ROUNDING = 1e-5
FP32 = Precision("fp32", "float32", "cpu")
# How rows pass: tokens per pass, threads, whether backwards, and whether memory had run out before.
WAYS = [(8192, 1, False, False), (1, 1, True, False), (200, 2, False, False), (100, 2, True, True)]
MAX_NEW_TOKENS = 12


def rows() -> list[TokenRow]:
    """Rows of very different lengths, some with one prompt."""
    draw = random.Random(0)

    def ids(shortest: int, longest: int) -> tuple[int, ...]:
        return tuple(draw.randrange(5, 300) for _ in range(draw.randint(shortest, longest)))

    prompts = [ids(1, 60) for _ in range(8)]
    return [TokenRow(number, prompts[number % 8], ids(1, 40), ids(1, 40)) for number in range(20)]


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def policy() -> Any:
    """The trained embedded model: of a random one the likeliest tokens are far apart, or all alike."""
    return load_policy(find_base("embedded/tiny"), FP32)


@pytest.fixture(scope="module")
def scorer() -> Any:
    return load_scorer(find_base("embedded/tiny"), FP32)


def passed(measure: Any, model: Any, way: tuple[int, int, bool, bool]) -> dict[str, torch.Tensor]:
    """Columns in the order of the rows, measured in one of the ways."""
    tokens, count, backwards, short_of_memory = way
    table = rows()[::-1] if backwards else rows()
    with threads(count):
        if short_of_memory:
            with half_as_much():
                found = measure(model, table, max_tokens=tokens)
        else:
            found = measure(model, table, max_tokens=tokens)
    return {name: values.flip(0) if backwards else values for name, values in found.items()}


@pytest.mark.parametrize("way", WAYS[1:])
def test_scores_and_log_probabilities_do_not_depend_on_order_passes_or_threads(
    policy: Any, scorer: Any, way: tuple[int, int, bool, bool]
) -> None:
    scores, again = (passed(table_scores, scorer, one) for one in (WAYS[0], way))
    logps, once_more = (passed(table_logps, policy, one) for one in (WAYS[0], way))
    for side in ("chosen", "rejected"):
        assert torch.isfinite(scores[side]).all()
        assert scores[side].std() > 100 * ROUNDING, "else nothing is told apart"
        assert (scores[side] - again[side]).abs().max() <= ROUNDING
        lengths = torch.tensor([len(getattr(row, side)) for row in rows()])
        assert ((logps[side] - once_more[side]) / lengths).abs().max() <= ROUNDING


def test_judged_answers_do_not_depend_on_order_or_passes(scorer: Any) -> None:
    answers = [(row.prompt, row.chosen or ()) for row in rows()]
    whole = score_answers(scorer, answers, max_tokens=8192)
    parts = score_answers(scorer, answers[::-1], max_tokens=64)[::-1]
    assert max(abs(one - other) for one, other in zip(whole, parts, strict=True)) <= ROUNDING


@pytest.mark.parametrize("way", [(1, 1, False), (3, 2, True), (64, 2, False)])
def test_greedy_answers_change_only_where_two_tokens_are_as_likely(policy: Any, way: tuple[int, int, bool]) -> None:
    size, count, backwards = way
    prompts = [row.prompt for row in rows()]
    expected = answered(policy, prompts, 64)
    with threads(count):
        found = answered(policy, prompts[::-1] if backwards else prompts, size)
    found = found[::-1] if backwards else found
    for prompt, one, other in zip(prompts, expected, found, strict=True):
        if one != other:
            assert gap_where_they_part(policy, prompt, one, other) < ROUNDING


def test_a_changed_answer_is_noticed(policy: Any) -> None:
    """The test above can fail: an answer with another first token is no rounding."""
    prompt = rows()[0].prompt
    (answer,) = answered(policy, [prompt], 1)
    assert gap_where_they_part(policy, prompt, answer, (answer[0] + 1, *answer[1:])) > ROUNDING


def answered(model: Any, prompts: Sequence[Sequence[int]], size: int) -> list[tuple[int, ...]]:
    settings = Decoding(MAX_NEW_TOKENS, batch_size=size)
    tokenizer = load_tokenizer(find_base("embedded/tiny"))
    return [samples[0].ids for samples in generate(model, tokenizer, prompts, settings, seed=0)]


def gap_where_they_part(model: Any, prompt: Sequence[int], one: Sequence[int], other: Sequence[int]) -> float:
    """How much likelier one token is than the other where two answers part, in nats."""
    place = next(place for place, both in enumerate(zip(one, other, strict=False)) if both[0] != both[1])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *one[:place]]])).logits[0, -1]
    return float((logits[one[place]] - logits[other[place]]).abs())
