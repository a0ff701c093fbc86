from typing import Annotated

from annotated_types import Ge, Gt
from torch.nn.functional import relu

from align_bench.api import Loss, PairLogps, Range, algorithm


@algorithm(paper="arXiv:2305.10425", learning_rate=5e-5, learning_rate_range=(5e-6, 5e-4), reward="β·s")
def slic(
    logps: PairLogps,
    *,
    beta: Annotated[float, Gt(0)] = 1.0,
    delta: Annotated[float, Gt(0), Range(0.1, 2)] = 1.0,
    nll_weight: Annotated[float, Ge(0), Range(0.1, 10)] = 1.0,
) -> Loss:
    """Sequence Likelihood Calibration: a hinge on the log-probabilities' margin plus the chosen answer's likelihood.

    Equation:
        max(0, δ − β(s_w − s_l)) − λ·s̄_w,  s̄ = s / |y|

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], and token counts; no reference is read.
        beta: reward scale, per nat; 1 in the paper, which has none.
        delta: δ, margin that is enough, in units of the reward; SimPO's comparison (arXiv:2405.14734) tunes 0.1 to 2.
        nll_weight: λ, weight of the likelihood term, no unit; the same comparison tunes 0.1 to 10.

    Returns:
        Per-example loss and the rewards β·s, each of shape [rows].

    Source:
        Zhao et al. 2023 (SLiC-HF), section 2.

        In TRL: CPOTrainer with `loss_type="hinge"`: δ is 1, and the likelihood term is a mean over all answer tokens of
        a batch, where long answers weigh more. For its DPOTrainer's hinge, which reads a reference, see `hinge`. Tests
        hold both equal in value and gradient, but for the weight of long answers.

    Differs from the source:
        1. The likelihood term keeps to the chosen answer; the paper may keep to the answers of the fine-tuning set.
        2. That term is a mean over the answer's tokens, then over answers, as in the other losses here.
        3. The default learning rate suits LoRA adapters.
    """
    chosen, rejected = beta * logps.chosen, beta * logps.rejected
    values = relu(delta - (chosen - rejected)) - nll_weight * logps.chosen_mean
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
