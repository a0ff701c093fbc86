"""Drift of a policy's answers from the base, against the plain forward pass of two separate models."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from align_bench.evaluate.drift import answer_drift
from align_bench.models.load import add_adapter
from align_bench.suite.models import Lora

ANSWERS = [((5, 6, 7), (8, 9)), ((11, 12), (13, 14, 15, 16)), ((20,), (21,))]


@pytest.fixture(scope="module")
def models(base_folder: Any) -> tuple[Any, Any]:
    """A base, and a policy on a copy of it whose adapter does something."""
    base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()
    policy = add_adapter(copy.deepcopy(base), Lora(r=4, alpha=8), seed=0).eval()
    torch.manual_seed(1)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return base, policy


def plain_logps(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> list[float]:
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0].double()
    logps = torch.log_softmax(logits, -1)
    return [float(logps[len(prompt) + step - 1, token]) for step, token in enumerate(answer)]


def test_drift_by_its_definition(models: tuple[Any, Any]) -> None:
    base, policy = models
    found = answer_drift(policy, ANSWERS, max_tokens=8)
    for (prompt, answer), drift in zip(ANSWERS, found, strict=True):
        own, reference = (plain_logps(model, prompt, answer) for model in (policy, base))
        ratios = [p - q for p, q in zip(own, reference, strict=True)]
        assert drift.logp == pytest.approx(sum(own), abs=1e-4)
        assert drift.ref_logp == pytest.approx(sum(reference), abs=1e-4)
        assert drift.kl == pytest.approx(sum(math.exp(-ratio) - 1 + ratio for ratio in ratios), abs=1e-4)
        assert drift.kl > 1e-3


def test_an_adapter_that_does_nothing_has_not_drifted(base_folder: Any) -> None:
    base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()
    updates: list[tuple[int, int]] = []
    found = answer_drift(
        add_adapter(base, Lora(r=4, alpha=8), seed=0).eval(),
        ANSWERS,
        max_tokens=8,
        update=lambda done, total, note="": updates.append((done, total)),
    )
    assert [drift.kl for drift in found] == [0.0] * 3
    assert all(drift.logp == drift.ref_logp for drift in found)
    assert updates[-1] == (3, 3)


def test_k3_averages_to_the_kl_of_the_first_token(models: tuple[Any, Any]) -> None:
    """Over all first tokens, weighted by the policy, k3 is KL(π ‖ π_ref) exactly."""
    base, policy = models
    prompt = (5, 6, 7)
    with torch.no_grad():
        own, reference = (
            torch.log_softmax(model(torch.tensor([prompt])).logits[0, -1].double(), -1) for model in (policy, base)
        )
    kl = float((own.exp() * (own - reference)).sum())
    every = answer_drift(policy, [(prompt, (token,)) for token in range(len(own))], max_tokens=512)
    mean = sum(math.exp(drift.logp) * drift.kl for drift in every)
    assert kl > 0.01
    assert mean == pytest.approx(kl, rel=1e-3)
