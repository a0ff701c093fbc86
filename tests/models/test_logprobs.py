"""Response log-probabilities and scores against the plain computation, row by row and without padding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
)

from align_bench.models import logprobs
from align_bench.models.logprobs import response_logps, scores

ROWS = [((5, 6, 7), (8, 9)), ((5,), (6, 7, 8, 9, 10)), ((11, 12, 13, 14), (15,)), ((20, 21), (1, 1, 1))]


def naive_logp(model: Any, prompt: Sequence[int], response: Sequence[int]) -> torch.Tensor:
    """The definition: one row at a time, full logits, a sum over response positions."""
    ids = [*prompt, *response]
    logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    total = torch.zeros((), dtype=torch.float64)
    for step, token in enumerate(response):
        total = total + torch.log_softmax(logits[len(prompt) + step - 1], -1)[token]
    return total


@pytest.fixture
def policy(base_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()


def test_equals_the_definition(policy: Any) -> None:
    expected = torch.stack([naive_logp(policy, *row) for row in ROWS])
    torch.testing.assert_close(response_logps(policy, ROWS).double(), expected, rtol=1e-5, atol=1e-5)


def test_gradient_equals_the_definition(policy: Any) -> None:
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0])
    parameter = policy.model.layers[0].self_attn.q_proj.weight
    (response_logps(policy, ROWS) * weights).sum().backward()
    ours = parameter.grad.clone()
    parameter.grad = None
    sum(weight * naive_logp(policy, *row) for weight, row in zip(weights, ROWS, strict=True)).backward()
    torch.testing.assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-5)


def test_chunks_of_the_head_change_nothing(policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = response_logps(policy, ROWS)
    monkeypatch.setattr(logprobs, "_HEAD_CHUNK", 2)
    torch.testing.assert_close(response_logps(policy, ROWS), whole, rtol=1e-6, atol=1e-6)


def test_a_row_does_not_see_its_batch(policy: Any) -> None:
    together = response_logps(policy, ROWS)
    alone = torch.cat([response_logps(policy, [row]) for row in ROWS])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_prompt_tokens_are_not_scored(policy: Any) -> None:
    (prompt, response), *_ = ROWS
    whole, part = response_logps(policy, [((*prompt[:1],), (*prompt[1:], *response)), (prompt, response)])
    expected = naive_logp(policy, prompt[:1], prompt[1:])
    torch.testing.assert_close((whole - part).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=64),
        Gemma2Config(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            final_logit_softcapping=5.0,
            attn_logit_softcapping=None,
        ),
        GraniteConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            logits_scaling=4.0,
        ),
    ],
    ids=["gpt2", "gemma2 with soft-capped logits", "granite with scaled logits"],
)
def test_other_architectures(config: Any) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    expected = torch.stack([naive_logp(model, *row) for row in ROWS])
    torch.testing.assert_close(response_logps(model, ROWS).double(), expected, rtol=1e-4, atol=1e-4)


def test_score_is_read_at_the_last_token_even_when_it_is_the_pad_token(base_folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=1, dtype=torch.float32).eval()
    pad = model.config.pad_token_id
    rows = [((5, 6), (7, pad)), ((5, 6, 7, 8), (9,)), ((pad, pad), (pad,))]
    expected = []
    for prompt, response in rows:
        hidden = model.model(input_ids=torch.tensor([[*prompt, *response]])).last_hidden_state
        expected.append(model.score(hidden[0, -1]).squeeze())
    torch.testing.assert_close(scores(model, rows), torch.stack(expected), rtol=1e-5, atol=1e-5)
