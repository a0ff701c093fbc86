import math
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Le
from torch import Tensor
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
def dpo(
    logps: ReferencedPairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1,
    divergence: Literal["reverse_kl", "js_divergence", "alpha_divergence"] = "reverse_kl",
    alpha: Annotated[float, Gt(0), Le(1)] = 0.5,
) -> Loss:
    """Direct Preference Optimization: logistic loss on the margin of the implicit rewards.

    Equation:
        −log σ(β(ρ_w − ρ_l)),  ρ = s_policy − s_ref;  ln 2 at π = ref
        With another divergence than reverse KL, f′(e^ρ) stands for ρ: ln 2 + log σ(ρ) for Jensen–Shannon,
        (1 − e^(−α·ρ)) / α for the α-divergence, which is forward KL at α = 1 and nears reverse KL as α nears 0

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference.
        beta: strength of the pull towards the reference, per nat; the paper uses 0.1 to 0.5, later work 0.01 too.
        divergence: what holds the policy to the reference: reverse KL, which is DPO, or another f-divergence.
        alpha: α of the α-divergence, no unit; the other divergences do not read it.

    Returns:
        Per-example loss and the implicit rewards β·ρ (β·f′(e^ρ)), each of shape [rows].

    Source:
        Rafailov et al. 2023, equation 7; the divergences are of Wang et al. 2023 (arXiv:2309.16240).

        In TRL: DPOTrainer with `loss_type="sigmoid"` and `f_divergence_type`, the same loss. Its
        `f_alpha_divergence_coef` is 1 − α, and its `forward_kl` is α = 1. Tests hold both equal in value and gradient.

        Also in LLaMA-Factory (`pref_loss: sigmoid`), OpenRLHF, align-anything.

    Differs from the source:
        1. The default learning rate suits LoRA adapters (about ten times that of full fine-tuning, 5e-7 to 5e-6).
        2. In the α-divergence the exponent −α·ρ is held at 80 or less, as in TRL, so that the loss stays finite.
    """
    chosen = beta * _slope(logps.chosen - logps.ref_chosen, divergence, alpha)
    rejected = beta * _slope(logps.rejected - logps.ref_rejected, divergence, alpha)
    return Loss(-logsigmoid(chosen - rejected), chosen_rewards=chosen, rejected_rewards=rejected)


def _slope(ratio: Tensor, divergence: str, alpha: float) -> Tensor:
    """`f′(e^ρ)` of the divergence, less its value at the reference."""
    match divergence:
        case "js_divergence":
            return math.log(2) + logsigmoid(ratio)
        case "alpha_divergence":
            return -torch.expm1((-alpha * ratio).clamp(max=80)) / alpha
        case _:
            return ratio
