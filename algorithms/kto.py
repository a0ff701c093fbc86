from typing import Annotated

import torch
from annotated_types import Gt

from align_bench.api import Loss, Range, ReferencedUnpairedLogps, algorithm


@algorithm(
    paper="arXiv:2402.01306",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    at_reference=lambda desirable_weight, undesirable_weight: (desirable_weight / 2, undesirable_weight / 2),
    normalised=False,
)
def kto(
    logps: ReferencedUnpairedLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1,
    desirable_weight: Annotated[float, Gt(0)] = 1.0,
    undesirable_weight: Annotated[float, Gt(0)] = 1.0,
) -> Loss:
    """Kahneman–Tversky Optimization: each answer against the batch's drift from the reference.

    Equation:
        desirable λ_D(1 − σ(β(ρ − z0))), undesirable λ_U(1 − σ(β(z0 − ρ))),
        z0 = max(0, mean over the batch of ρ(x_i, y_j≠i)), no gradient;  ½ at π = ref and λ = 1

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], their reference, and the batch's mismatched ones.
        beta: strength of the pull towards the reference, per nat; the paper uses 0.01 to 0.5.
        desirable_weight: λ_D, no unit; the paper keeps λ_D n_D : λ_U n_U between 1:1 and 4:3.
            So the weights' range depends on the data, and none is declared.
        undesirable_weight: λ_U, no unit.

    Returns:
        Per-example loss and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Ethayarajh et al. 2024, equation 8.

        In TRL: KTOTrainer with `loss_type="kto"`, the same loss, drift included, over a batch of one device. Tests hold
        both equal in value and gradient.

        Also in LLaMA-Factory (`stage: kto`), OpenRLHF, align-anything.

    Differs from the source:
        1. z0 is taken over the whole effective batch, not over a micro-batch.
        2. A row's mismatched answer is the same in every epoch, so that its reference is computed once.
        3. The default learning rate suits LoRA adapters (5e-7 to 5e-6 for full fine-tuning).
    """
    drift = (logps.mismatched - logps.ref_mismatched).mean().clamp(min=0).detach()
    ratio = logps.logps - logps.ref_logps
    # 1 − σ(x) as σ(−x): the difference would round to 0, and its gradient with it, from x = 17 on.
    desirable = desirable_weight * torch.sigmoid(beta * (drift - ratio))
    undesirable = undesirable_weight * torch.sigmoid(beta * (ratio - drift))
    return Loss(
        torch.where(logps.desirable, desirable, undesirable),
        rewards=beta * ratio,
        metrics={"drift": drift.expand_as(ratio)},
    )
