from typing import Annotated

from annotated_types import Gt
from torch.nn.functional import logsigmoid

from align_bench.api import ConfidencePairLogps, Loss, Range, algorithm


@algorithm(
    paper="arXiv:2406.11827",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    normalised=False,
)
def wpo(logps: ConfidencePairLogps, *, beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1) -> Loss:
    """Weighted Preference Optimization: DPO in which pairs that the policy would write itself weigh more.

    Equation:
        −w_w·w_l·log σ(β(ρ_w − ρ_l)),  ρ = s_policy − s_ref,  w = exp(mean over the answer's tokens of
        log π(y_t) − log Σ_v π(v)²), no gradient

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], their reference, and the policy's confidence.
        beta: strength of the pull towards the reference, per nat; 0.01 in the paper.

    Returns:
        Per-example loss and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Zhou et al. 2024, equation 2, with the weights of section 3.3 aligned to the policy's own samples.

        In TRL: DPOTrainer with `loss_type="sigmoid"` and `use_weighting=True`, the same loss. Tests hold both equal in
        value and gradient.

    Differs from the source:
        1. Weights above 1 stand, as in TRL.
        2. TRL weighs its other losses too; here it is DPO's.
        3. The default learning rate suits LoRA adapters.
    """
    chosen = beta * (logps.chosen - logps.ref_chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected)
    weight = (logps.confidence_chosen + logps.confidence_rejected).exp()
    values = -weight * logsigmoid(chosen - rejected)
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected, metrics={"weight": weight})
