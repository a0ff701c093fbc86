"""How far a policy has moved from the base, on the policy's own answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from align_bench.models.layout import passes_over
from align_bench.models.logprobs import token_logps
from align_bench.records import no_update

if TYPE_CHECKING:
    from align_bench.records import Update


@dataclass(frozen=True, slots=True)
class Drift:
    """One answer under the policy and under the base.

    Attributes:
        logp, ref_logp: its log-probability under the policy and under the base, nats.
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
    with torch.no_grad():
        for numbers in passes_over(model, answers, max_tokens=max_tokens):
            rows = [answers[number] for number in numbers]
            own = token_logps(model, rows)[0].double()
            with model.disable_adapter():
                reference = token_logps(model, rows)[0].double()
            kl = torch.expm1(reference - own) - (reference - own)  # 0 beyond an answer's end, where both are 0
            columns = zip(own.sum(1).tolist(), reference.sum(1).tolist(), kl.sum(1).tolist(), strict=True)
            found |= {number: Drift(*values) for number, values in zip(numbers, columns, strict=True)}
            update(len(found), len(answers))
    return [found[index] for index in range(len(answers))]
