from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, PairLogps, Range, algorithm


@algorithm(
    paper="arXiv:2501.03884",
    learning_rate=1e-5,
    learning_rate_range=(3e-6, 1e-4),
    reward="β(1 − e^(−α·s̄)) / α",
    normalised=True,
)
def alphapo(
    logps: PairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(2, 10)] = 2.5,
    gamma: Annotated[float, Ge(0)] = 0.1,
    alpha: Annotated[float, Ge(-5), Le(5)] = 0.25,
) -> Loss:
    """AlphaPO: SimPO whose reward is a power of the probability per token in place of its logarithm.

    Equation:
        −log σ(r_w − r_l − γ),  r = β(1 − e^(−α·s̄)) / α,  s̄ = s / |y|;  r = β·s̄ at α = 0, which is SimPO

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], and token counts; no reference is read.
        beta: reward scale, per nat per token; 2.5 in the paper for Mistral-Instruct.
        gamma: target reward margin, no unit; 0.1 in the paper for Mistral-Instruct.
        alpha: α, shape of the reward, per nat per token; 0.25 in the paper for Mistral-Instruct. Above 0 the reward is
            steeper for unlikely answers, below 0 for likely ones.

    Returns:
        Per-example loss and the rewards r, each of shape [rows].

    Source:
        Gupta et al. 2025.

        In TRL: CPOTrainer with `loss_type="alphapo"` and γ as `simpo_gamma`, the same loss. Tests hold both equal in
        value and gradient.

    Differs from the source:
        1. The exponent is held at 80 or less, so that the reward stays finite: at α = 0.25 that is 320 nats per token.
        2. The default learning rate suits LoRA adapters, as SimPO's here (7e-7 in the paper, all weights trained).
    """
    chosen, rejected = (beta * _shaped(mean, alpha) for mean in (logps.chosen_mean, logps.rejected_mean))
    return Loss(-logsigmoid(chosen - rejected - gamma), chosen_rewards=chosen, rejected_rewards=rejected)


def _shaped(mean_logp: Tensor, alpha: float) -> Tensor:
    return mean_logp if alpha == 0 else -torch.expm1((-alpha * mean_logp).clamp(max=80)) / alpha
