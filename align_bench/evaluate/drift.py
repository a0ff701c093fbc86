"""How far a policy has moved from the base, or from its start, on the policy's own answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align_bench.models.layout import passes_over
from align_bench.models.logprobs import token_logps
from align_bench.models.transfer import read_late
from align_bench.records import no_update

if TYPE_CHECKING:
    from align_bench.records import Update


@dataclass(frozen=True, slots=True)
class Drift:
    """One answer under the policy and under what it has moved from: the base, or its start.

    Attributes:
        logp, ref_logp: its log-probability under the policy and under the other, nats.
        kl: Σ_t (e^{−ℓ_t} − 1 + ℓ_t) with ℓ_t = log π(y_t | …) − log π_ref(y_t | …), nats: at each token the k3 estimate
            of KL(π ‖ π_ref), never below 0 (Schulman 2020, http://joschu.net/blog/kl-approx.html). Its mean is the KL
            of whole answers where these were sampled from the policy at temperature 1.
    """

    logp: float
    ref_logp: float
    kl: float


def answer_drift(
    model: Any,
    answers: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    max_tokens: int,
    update: Update = no_update,
) -> list[Drift]:
    """Measure each answer under a policy and, its adapter switched off, under the base.

    Args:
        model: a policy: the base with an adapter.
        answers: (prompt ids, answer ids) pairs as the policy generated them, neither empty.
        max_tokens: padded tokens per forward pass.
        update: progress, in answers.

    Returns:
        One `Drift` per answer, in the order given.
    """
    found: dict[int, Drift] = {}

    def measured() -> Iterator[tuple[Sequence[int], Tensor]]:
        for numbers in passes_over(model, answers, max_tokens=max_tokens):
            rows = [answers[number] for number in numbers]
            own = token_logps(model, rows)[0].double()
            with model.disable_adapter():
                reference = token_logps(model, rows)[0].double()
            kl = torch.expm1(reference - own) - (reference - own)  # 0 beyond an answer's end, where both are 0
            yield numbers, torch.stack([own.sum(1), reference.sum(1), kl.sum(1)], dim=1)

    with torch.no_grad():
        for numbers, values in read_late(measured()):
            found |= {number: Drift(*own) for number, own in zip(numbers, values.tolist(), strict=True)}
            update(len(found), len(answers))
    return [found[index] for index in range(len(answers))]


def answer_logps(
    model: Any,
    answers: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    max_tokens: int,
    update: Update = no_update,
) -> list[Tensor]:
    """Log-probabilities of the tokens of each answer under one model.

    Args:
        model: a causal language model.
        answers: (prompt ids, answer ids) pairs, neither empty.
        max_tokens: padded tokens per forward pass.
        update: progress, in answers.

    Returns:
        One float64 tensor of shape [tokens of the answer] per answer, nats.
    """
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        passes = passes_over(model, answers, max_tokens=max_tokens)
        measured = (
            (numbers, token_logps(model, [answers[number] for number in numbers])[0].double()) for numbers in passes
        )
        for numbers, logps in read_late(measured):
            for number, own in zip(numbers, logps, strict=True):
                found[number] = own[: len(answers[number][1])]
            update(len(found), len(answers))
    return [found[index] for index in range(len(answers))]


def drift_between(own: Sequence[Tensor], reference: Sequence[Tensor]) -> list[Drift]:
    """The drift of each answer, from its tokens' log-probabilities under the policy and under what it has moved from.

    Args:
        own, reference: as `answer_logps` returns them, of the same answers.
    """
    found = []
    for logps, others in zip(own, reference, strict=True):
        kl = torch.expm1(others - logps) - (others - logps)
        found.append(Drift(float(logps.sum()), float(others.sum()), float(kl.sum())))
    return found
