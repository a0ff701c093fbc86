"""No tensor of shape [rows, time, vocabulary] exists anywhere in training or measuring: the head works in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from align_bench.api import OfflineAlgorithm
from align_bench.evaluate.preference import mismatched_logps, table_logps, table_scores
from align_bench.models import head as heads
from align_bench.models import logprobs
from align_bench.models.load import add_adapter
from align_bench.models.logprobs import token_logps
from align_bench.plugins.registry import load_registry
from align_bench.records import TokenRow
from align_bench.suite.models import Lora, Train
from align_bench.train.job import TrainingJob
from align_bench.train.loop import train

VOCABULARY = 3000
WIDTH = 16
CHUNK = 8
ROWS = [
    TokenRow(
        pair,
        tuple(range(1, 20 + pair)),
        tuple(range(100, 130 + 3 * pair)),
        tuple(range(200, 250 - 3 * pair)),
    )
    for pair in range(6)
]
ANSWER_TOKENS = sum(len(row.chosen or ()) + len(row.rejected or ()) for row in ROWS)
# The weights are as large as they are, and a chunk's logits may be; all answers' logits at once would be 480 × 3000.
ALLOWED = max(VOCABULARY * WIDTH, CHUNK * VOCABULARY)
TOO_MUCH = ANSWER_TOKENS * VOCABULARY


class Largest(TorchDispatchMode):
    """Element counts of the largest tensors that any operation gives, forward or backward.

    Attributes:
        elements: of the largest tensor with a dimension of the vocabulary's size.
        anything: of the largest tensor of all.
        operation: what gave the former.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch says no types here
        self.elements = self.anything = 0
        self.operation = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.anything = max(self.anything, value.numel())
                if VOCABULARY in value.shape and value.numel() > self.elements:
                    self.elements, self.operation = value.numel(), f"{func} {tuple(value.shape)}"
        return result


@pytest.fixture(autouse=True, params=[(CHUNK, None), (64, 300)], ids=["some positions", "some tokens"])
def _small_chunks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(heads, "_HEAD_CHUNK", CHUNK)
    monkeypatch.setattr(heads, "_ON_A_CPU", request.param)


@pytest.fixture
def watched() -> Iterator[Largest]:
    with Largest() as largest:
        yield largest


def model(*, scalar: bool) -> Any:
    """Two layers under a head that outweighs them."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_labels=1,
    )
    loader = AutoModelForSequenceClassification if scalar else AutoModelForCausalLM
    torch.manual_seed(0)
    return add_adapter(loader.from_config(config).requires_grad_(False).eval(), Lora(r=2, alpha=4), seed=0)


def sequences() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(row.prompt, answer) for row in ROWS for answer in (row.chosen, row.rejected) if answer is not None]


def naive(policy: Any) -> None:
    """What a plain loop does."""
    longest = max(len(prompt) + len(answer) for prompt, answer in sequences())
    policy(input_ids=torch.ones(len(sequences()), longest, dtype=torch.long))


def trained(name: str) -> Callable[[Any], None]:
    algorithm = load_registry()[name].algorithm
    assert isinstance(algorithm, OfflineAlgorithm)
    columns = {
        f"{prefix}{side}": torch.zeros(len(ROWS)) for prefix in ("", "mismatched_") for side in ("chosen", "rejected")
    }

    def run(policy: Any) -> None:
        job = TrainingJob(
            model=policy,
            rows=ROWS,
            algorithm=algorithm,
            parameters=algorithm.resolve({}),
            learning_rate=1e-3,
            settings=Train(batch_size=12),
            seed=0,
        )
        log = train(job, columns if algorithm.reference else None)
        assert len(log.steps) == 1

    return run


WORK: dict[str, Callable[[Any], object]] = {
    **{f"training {name}": trained(name) for name in ("rm", "sft", "dpo", "kto", "simpo", "orpo")},
    "log-probabilities": lambda policy: table_logps(policy, ROWS, max_tokens=8192),
    "mismatched log-probabilities": lambda policy: mismatched_logps(policy, ROWS, max_tokens=8192),
    "token log-probabilities": lambda policy: token_logps(policy, sequences()),
    "scores": lambda scorer: table_scores(scorer, ROWS, max_tokens=8192),
}


@pytest.mark.parametrize("what", WORK)
def test_no_tensor_holds_every_positions_logits(what: str, watched: Largest) -> None:
    WORK[what](model(scalar=what in ("training rm", "scores")))
    assert watched.elements <= ALLOWED < TOO_MUCH, watched.operation
    assert 0 < watched.anything < TOO_MUCH / 4  # nor under another shape; attention takes rows × heads × time²


def test_a_trained_head_is_chunked_too(watched: Largest) -> None:
    policy = model(scalar=False)
    head = policy.get_base_model().lm_head
    head.weight.requires_grad_(True)
    logprobs.response_logps(policy, sequences()).sum().backward()
    assert head.weight.grad is not None
    assert watched.elements <= ALLOWED, watched.operation


def test_a_plain_loop_would_be_seen(watched: Largest) -> None:
    naive(model(scalar=False))
    assert watched.elements >= TOO_MUCH
    assert str(VOCABULARY) in watched.operation


def test_the_bound_is_the_chunks(monkeypatch: pytest.MonkeyPatch, watched: Largest) -> None:
    """With a chunk that holds all answers, the same look finds their logits."""
    monkeypatch.setattr(heads, "_ON_A_CPU", (ANSWER_TOKENS, None))
    table_logps(model(scalar=False), ROWS, max_tokens=8192)
    assert watched.elements == TOO_MUCH


def test_more_rows_take_more_passes_and_no_larger_tensor() -> None:
    policy = model(scalar=False)
    table_logps(policy, ROWS, max_tokens=256)  # looks whether the model can take the shortcuts
    found = []
    for rows in (ROWS, [*ROWS, *(TokenRow(6 + row.pair, row.prompt[1:], row.chosen, row.rejected) for row in ROWS)]):
        with Largest() as largest:
            table_logps(policy, rows, max_tokens=256)
        found.append((largest.elements, largest.anything))
    assert found[0] == found[1]
