import math
from typing import Annotated

from annotated_types import Ge, Gt, Lt
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, Range, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2403.00409",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    at_reference=math.log(2),
    normalised=False,
)
def rdpo(
    logps: ReferencedPairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1,
    flip_rate: Annotated[float, Ge(0), Lt(0.5), Range(0.05, 0.4)] = 0.1,
) -> Loss:
    """Robust DPO: DPO debiased for flipped labels, so that its expectation is DPO's on clean ones.

    Equation:
        [−(1 − ε) log σ(h) + ε log σ(−h)] / (1 − 2ε),  h = β(ρ_w − ρ_l);  ln 2 at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference.
        beta: strength of the pull towards the reference, per nat.
        flip_rate: ε, share of the labels that are wrong, no unit; 0 is DPO.

    Returns:
        Per-example loss (it may be negative) and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Ray Chowdhury et al. 2024, the robust loss of section 3.

        In TRL: DPOTrainer with `loss_type="robust"` and ε as `label_smoothing`, the same loss. Tests hold both equal in
        value and gradient.

    Differs from the source:
        1. The default learning rate suits LoRA adapters (about ten times that of full fine-tuning).
    """
    chosen = beta * (logps.chosen - logps.ref_chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected)
    margin = chosen - rejected
    values = (flip_rate * logsigmoid(-margin) - (1 - flip_rate) * logsigmoid(margin)) / (1 - 2 * flip_rate)
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
