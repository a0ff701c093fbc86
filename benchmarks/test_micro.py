"""Micro-benchmarks of what a run spends its time in. The plain test run does not collect them; this does:

pytest benchmarks/test_micro.py --benchmark-only --benchmark-autosave
pytest-benchmark compare        # against what was saved before

The base is `embedded/tiny`, or the folder that MICRO_BASE names. All run in one thread: on a busy machine, threads that
wait for each other would be measured.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from align_bench.data.batches import effective_batches, mismatched
from align_bench.data.chat import tokenize
from align_bench.data.preferences import DataSource, read
from align_bench.evaluate.preference import table_logps, table_scores
from align_bench.metrics.accuracy import accuracy
from align_bench.metrics.length_bias import length_correlation
from align_bench.models import head as heads
from align_bench.models.base import find_base
from align_bench.models.generate import generate
from align_bench.models.layout import lay_out
from align_bench.models.load import add_adapter, load_policy, load_scorer, load_tokenizer
from align_bench.models.logprobs import response_logps, scores
from align_bench.models.micro_batches import even_passes, micro_batches, scoring_tokens
from align_bench.models.precision import resolve_precision
from align_bench.records import TokenRow
from align_bench.stats.paired import holm, mcnemar_exact, paired_t
from align_bench.suite.models import Generate, Lora

BASE = find_base(os.environ.get("MICRO_BASE", "embedded/tiny"))
PRECISION = resolve_precision("fp32")
PAIRS = 16
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def rows() -> Sequence[TokenRow]:
    source = DataSource("embedded/planted", split="train", rows=PAIRS)
    return tokenize(load_tokenizer(BASE), read(source), max_length=128).rows


@pytest.fixture(scope="module")
def sequences(rows: Sequence[TokenRow]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(row.prompt, answer) for row in rows for answer in (row.chosen, row.rejected) if answer is not None]


@pytest.fixture(scope="module")
def policy() -> Any:
    return add_adapter(load_policy(BASE, PRECISION), Lora(), seed=0)


@pytest.fixture(scope="module")
def scorer() -> Any:
    return add_adapter(load_scorer(BASE, PRECISION), Lora(), seed=0)


def backward(value: torch.Tensor, model: Any) -> None:
    value.sum().backward()
    model.zero_grad(set_to_none=True)


# Log-probabilities and scores.


def test_log_probabilities_of_pairs(benchmark: Any, policy: Any, rows: Any) -> None:
    benchmark(lambda: table_logps(policy, rows, max_tokens=scoring_tokens(None, "cpu")))


def test_log_probabilities_and_gradient_of_pairs(benchmark: Any, policy: Any, sequences: Any) -> None:
    benchmark(lambda: backward(response_logps(policy, sequences), policy))


def test_scores_of_pairs(benchmark: Any, scorer: Any, rows: Any) -> None:
    benchmark(lambda: table_scores(scorer, rows, max_tokens=scoring_tokens(None, "cpu")))


def test_scores_and_gradient_of_pairs(benchmark: Any, scorer: Any, sequences: Any) -> None:
    benchmark(lambda: backward(scores(scorer, sequences), scorer))


def test_greedy_answers(benchmark: Any, policy: Any, rows: Any) -> None:
    tokenizer, prompts = load_tokenizer(BASE), [row.prompt for row in rows]
    benchmark(lambda: generate(policy, tokenizer, prompts, Generate(max_new_tokens=16), seed=0))


# The head: 1,000 positions of a small and of a large vocabulary.


@pytest.mark.parametrize("vocabulary", [2_000, 50_000])
@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "forward and backward"])
@pytest.mark.parametrize("threads", [1, 2])
def test_head(benchmark: Any, request: pytest.FixtureRequest, vocabulary: int, gradient: bool, threads: int) -> None:
    torch.set_num_threads(threads)
    request.addfinalizer(lambda: torch.set_num_threads(1))
    draw = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(576, vocabulary, bias=False).requires_grad_(False)
    hidden = torch.randn(1000, 576, generator=draw).requires_grad_(gradient)
    target = torch.randint(vocabulary, (1000,), generator=draw)

    def work() -> None:
        found = heads.head_logps(head, hidden, target)
        if gradient:
            found.sum().backward()

    benchmark(work)


# Batching: 30,000 pairs of a real set's lengths, and one step's layout.


@pytest.fixture(scope="module")
def lengths() -> list[int]:
    draw = random.Random(0)
    return [20 + int(draw.lognormvariate(5, 0.8)) for _ in range(30_000)]


def test_order_of_an_epoch(benchmark: Any, lengths: list[int]) -> None:
    benchmark(lambda: effective_batches(len(lengths), 32, epochs=1, seed=0))


@pytest.mark.parametrize("split", [micro_batches, even_passes])
def test_micro_batches_of_an_epoch(benchmark: Any, lengths: list[int], split: Any) -> None:
    batches = effective_batches(len(lengths), 32, epochs=1, seed=0)
    benchmark(lambda: [split(batch, lengths, max_tokens=8192) for batch in batches])


def test_mismatched_answers(benchmark: Any) -> None:
    rows = [TokenRow(pair, (pair // 3,), (1,), (2,)) for pair in range(30_000)]
    benchmark(lambda: mismatched(rows))


def test_layout_of_a_step(benchmark: Any, policy: Any, sequences: Any) -> None:
    inner = policy.get_base_model()
    benchmark(lambda: lay_out(inner, sequences))


# Statistics of a thousand validation pairs.


@pytest.fixture(scope="module")
def columns() -> list[list[float]]:
    found: list[list[float]] = np.random.default_rng(0).normal(size=(4, 1000)).tolist()
    return found


def test_accuracy(benchmark: Any, columns: Any) -> None:
    benchmark(lambda: accuracy(columns[0], columns[1]))


def test_paired_t(benchmark: Any, columns: Any) -> None:
    benchmark(lambda: paired_t(columns[0], columns[1]))


def test_mcnemar(benchmark: Any, columns: Any) -> None:
    right = [[float(value > 0) for value in column] for column in columns]
    benchmark(lambda: mcnemar_exact(right[0], right[1]))


def test_holm(benchmark: Any) -> None:
    p_values = np.random.default_rng(0).uniform(size=100).tolist()
    benchmark(lambda: holm(p_values))


def test_length_correlation_with_its_bootstrap(benchmark: Any, columns: Any) -> None:
    lengths = [[abs(value) + 1 for value in column] for column in columns]
    benchmark(lambda: length_correlation(columns[0], columns[1], lengths[2], lengths[3]))
