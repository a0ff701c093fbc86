import math
from typing import Annotated

from annotated_types import Gt
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, Range, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2305.18290",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    at_reference=math.log(2),
    normalised=False,
)
def dpo(logps: ReferencedPairLogps, *, beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1) -> Loss:
    """Direct Preference Optimization: logistic loss on the margin of the implicit rewards.

    Equation:
        −log σ(β(ρ_w − ρ_l)),  ρ = s_policy − s_ref;  ln 2 at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference.
        beta: strength of the pull towards the reference, per nat; the paper uses 0.1 to 0.5, later work 0.01 too.

    Returns:
        Per-example loss and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Rafailov et al. 2023, equation 7.

    Differs from the source:
        1. The default learning rate suits LoRA adapters (about ten times that of full fine-tuning, 5e-7 to 5e-6).
    """
    chosen = beta * (logps.chosen - logps.ref_chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected)
    return Loss(-logsigmoid(chosen - rejected), chosen_rewards=chosen, rejected_rewards=rejected)
