from typing import Annotated

from annotated_types import Ge, Gt
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, PairLogps, Range, algorithm


@algorithm(paper="arXiv:2401.08417", learning_rate=5e-5, learning_rate_range=(5e-6, 5e-4), reward="β·s")
def cpo(
    logps: PairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.1)] = 0.1,
    nll_weight: Annotated[float, Ge(0)] = 1.0,
) -> Loss:
    """Contrastive Preference Optimization: DPO without a reference, held in place by the chosen answer's likelihood.

    Equation:
        −log σ(β(s_w − s_l)) − λ·s̄_w,  s̄ = s / |y|

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], and token counts; no reference is read.
        beta: reward scale, per nat; the paper uses 0.1, SimPO's comparison (arXiv:2405.14734) tunes 0.01 to 0.1.
        nll_weight: λ, weight of the likelihood term, no unit; 1 in the paper.

    Returns:
        Per-example loss and the rewards β·s, each of shape [rows].

    Source:
        Xu et al. 2024, section 3.

        In TRL: CPOTrainer with `loss_type="sigmoid"` and λ as `cpo_alpha`; its likelihood term is a mean over all
        answer tokens of a batch. Tests hold both equal in value and gradient, but for the weight of long answers.

    Differs from the source:
        1. The likelihood term is a mean over the answer's tokens, then over answers, so that a long answer weighs no
           more than a short one; the authors' code means over all tokens of a batch.
        2. The default learning rate suits LoRA adapters.
    """
    chosen, rejected = beta * logps.chosen, beta * logps.rejected
    values = -logsigmoid(chosen - rejected) - nll_weight * logps.chosen_mean
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
