import math
from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, Range, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2406.08414",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    at_reference=(1 + math.log(2)) / 2,
    normalised=False,
    falls_with="nothing",
)
def discopop(
    logps: ReferencedPairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.05,
    tau: Annotated[float, Gt(0), Le(1)] = 0.05,
) -> Loss:
    """DiscoPOP: a loss that a language model proposed, DPO's below a margin of 0 and an exponential one above.

    It is not convex: at τ = 0.05 it rises with the margin from about βΔ = −0.12 to 0.07, which holds the reference,
    so that a small step from there may go either way.

    Equation:
        −(1 − m) log σ(h) + m·e^−h,  m = σ(h/τ),  h = β(ρ_w − ρ_l);  (1 + ln 2)/2 at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference.
        beta: strength of the pull towards the reference, per nat; 0.05 in the paper.
        tau: τ, how wide the blend between both losses is, in units of the reward; 0.05 in the paper. Above 1 the
            exponential would outgrow its weight, and the loss would have no bound at a very wrong margin.

    Returns:
        Per-example loss and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Lu et al. 2024, equation 5, there called the log-ratio modulated loss (LRML).

        In TRL: DPOTrainer with `loss_type="discopop"` and τ as `discopop_tau`. The same loss, but TRL multiplies e^−h
        by m, which is not a number where the one overflows and the other is 0 (below h = −88); here the exponents are
        added. Tests hold both equal in value and gradient.

    Differs from the source:
        1. The default learning rate suits LoRA adapters (5e-7 in the paper, all weights trained).
    """
    chosen = beta * (logps.chosen - logps.ref_chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected)
    margin = chosen - rejected
    logistic = torch.sigmoid(-margin / tau) * -logsigmoid(margin)
    exponential = (logsigmoid(margin / tau) - margin).exp()
    return Loss(logistic + exponential, chosen_rewards=chosen, rejected_rewards=rejected)
