from typing import Annotated

import torch
from annotated_types import Gt

from align_bench.api import Loss, MatchedUnpairedLogps, Range, algorithm


@algorithm(
    paper="arXiv:2408.06266",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    at_reference=lambda desirable_weight, undesirable_weight: (desirable_weight / 2, undesirable_weight / 2),
    normalised=False,
)
def apo_zero_unpaired(
    logps: MatchedUnpairedLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1,
    desirable_weight: Annotated[float, Gt(0)] = 1.0,
    undesirable_weight: Annotated[float, Gt(0)] = 1.0,
) -> Loss:
    """APO-zero on single answers: KTO whose anchor is 0 in place of the batch's drift from the reference.

    Equation:
        desirable λ_D(1 − σ(β·ρ)), undesirable λ_U·σ(β·ρ),  ρ = s_policy − s_ref;  ½ at π = ref and λ = 1

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference.
        beta: strength of the pull towards the reference, per nat; 0.1 in the paper, for pairs.
        desirable_weight: λ_D, no unit. Its range depends on how many answers are desirable, so none is declared.
        undesirable_weight: λ_U, no unit.

    Returns:
        Per-example loss and the implicit rewards β·ρ, each of shape [rows].

    Source:
        The loss of D'Oosterlinck et al. 2024, equation 7, taken apart into its two sides, as TRL does.

        In TRL: KTOTrainer with `loss_type="apo_zero_unpaired"`, the same loss. Tests hold both equal in value and
        gradient.

    Differs from the source:
        1. The paper's loss is on pairs and has no weights: those are KTO's, as in TRL.
        2. The default learning rate suits LoRA adapters (2e-7 in the paper, all weights trained).
    """
    reward = beta * (logps.logps - logps.ref_logps)
    # 1 − σ(x) as σ(−x): the difference would round to 0, and its gradient with it, from x = 17 on.
    desirable = desirable_weight * torch.sigmoid(-reward)
    undesirable = undesirable_weight * torch.sigmoid(reward)
    return Loss(torch.where(logps.desirable, desirable, undesirable), rewards=reward)
