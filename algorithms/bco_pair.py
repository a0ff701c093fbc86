import math
from typing import Annotated

from annotated_types import Gt
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, Range, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2404.04656",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    at_reference=2 * math.log(2),
    normalised=False,
)
def bco_pair(logps: ReferencedPairLogps, *, beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1) -> Loss:
    """Binary Classifier Optimization on pairs, without the reward shift: each answer is classified by itself.

    Equation:
        −log σ(β·ρ_w) − log σ(−β·ρ_l),  ρ = s_policy − s_ref;  2 ln 2 at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference.
        beta: strength of the pull towards the reference, per nat; 0.01 to 0.1 in the paper.

    Returns:
        Per-example loss and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Jung et al. 2024, the loss of theorem 3, an upper bound of DPO's.

        In TRL: DPOTrainer with `loss_type="bco_pair"`, the same loss. Tests hold both equal in value and gradient.

        Also in LLaMA-Factory (`pref_bco_weight`, added to DPO).

    Differs from the source:
        1. The paper subtracts a reward shift δ from both rewards; here it is 0, as in TRL. `bco` has it.
        2. The default learning rate suits LoRA adapters.
    """
    chosen = beta * (logps.chosen - logps.ref_chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected)
    return Loss(-logsigmoid(chosen) - logsigmoid(-rejected), chosen_rewards=chosen, rejected_rewards=rejected)
