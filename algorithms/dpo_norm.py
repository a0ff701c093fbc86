import math
from typing import Annotated

from annotated_types import Gt
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2411.15124",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ̄",
    at_reference=math.log(2),
    normalised=True,
)
def dpo_norm(logps: ReferencedPairLogps, *, beta: Annotated[float, Gt(0)] = 5.0) -> Loss:
    """Length-normalised DPO: DPO on log-ratios per token, so that a long answer counts no more than a short one.

    Equation:
        −log σ(β(ρ̄_w − ρ̄_l)),  ρ̄ = (s_policy − s_ref) / |y|;  ln 2 at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference, and token counts.
        beta: strength of the pull towards the reference, per nat per token; 5 in the paper's final models.
            A log-ratio per token is smaller than a sum by the answer's length, so beta is larger than DPO's.

    Returns:
        Per-example loss and the rewards β·ρ̄, each of shape [rows].

    Source:
        Lambert et al. 2024 (Tülu 3), the section on preference tuning.

        In TRL: DPOTrainer with `loss_type="sigmoid_norm"`, the same loss. Tests hold both equal in value and gradient.

    Differs from the source:
        1. The default learning rate suits LoRA adapters (the paper's 8B model has 5e-7, all weights trained).
    """
    chosen = beta * (logps.chosen - logps.ref_chosen) / logps.chosen_tokens
    rejected = beta * (logps.rejected - logps.ref_rejected) / logps.rejected_tokens
    return Loss(-logsigmoid(chosen - rejected), chosen_rewards=chosen, rejected_rewards=rejected)
