from typing import Annotated

import torch
from annotated_types import Gt

from align_bench.api import Loss, Range, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2408.06266",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    at_reference=1.0,
    normalised=False,
    falls_with="margin",
)
def apo_down(logps: ReferencedPairLogps, *, beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1) -> Loss:
    """Anchored Preference Optimization, down: both answers become less likely, and rejected ones by more.

    For data whose chosen answers are worse than what the model writes itself; `apo_zero` is for better ones. At the
    reference the chosen answer has no gradient; it gets one, which lowers it, once the rejected one has sunk.

    Equation:
        σ(β·ρ_w) + 1 − σ(β(ρ_w − ρ_l)),  ρ = s_policy − s_ref;  1 at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference.
        beta: strength of the pull towards the reference, per nat; 0.1 in the paper.

    Returns:
        Per-example loss, between 0 and 2, and the implicit rewards β·ρ, each of shape [rows].

    Source:
        D'Oosterlinck et al. 2024, equation 8. TRL cites the same equation, and its documentation the same β and rate.

        In TRL: DPOTrainer with `loss_type="apo_down"`, the same loss. Tests hold both equal in value and gradient.

    Differs from the source:
        1. The paper's loss is this one less 1, which changes no gradient.
        2. The default learning rate suits LoRA adapters (2e-7 in the paper, all weights trained).
    """
    chosen = beta * (logps.chosen - logps.ref_chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected)
    # 1 − σ(x) as σ(−x): the difference would round to 0, and its gradient with it, from x = 17 on.
    values = torch.sigmoid(chosen) + torch.sigmoid(rejected - chosen)
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
