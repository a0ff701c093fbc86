from typing import Annotated

from annotated_types import Ge, Gt
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, PairLogps, Range, algorithm


@algorithm(
    paper="arXiv:2405.14734",
    learning_rate=1e-5,
    learning_rate_range=(3e-6, 1e-4),
    reward="β·s̄",
    normalised=True,
)
def simpo(
    logps: PairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(2, 10)] = 2.5,
    gamma: Annotated[float, Ge(0), Range(0.25, 1.6)] = 1.25,
) -> Loss:
    """Simple Preference Optimization: logistic loss on length-normalised log-probabilities with a target margin.

    Equation:
        −log σ(β(s̄_w − s̄_l) − γ),  s̄ = s / |y|

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], and token counts; no reference is read.
        beta: reward scale, per nat per token; the paper uses 2 to 2.5, later work 10.
        gamma: target reward margin, no unit; the paper tunes gamma / beta in 0.1 to 0.8 and starts at 0.5.
            At its beta of 2 to 2.5 that is 0.2 to 2; its released models have 0.25 to 1.6.

    Returns:
        Per-example loss and the rewards β·s̄, each of shape [rows].

    Source:
        Meng et al. 2024, equation 6.

        In TRL: CPOTrainer with `loss_type="simpo"`, `cpo_alpha=0` and γ as `simpo_gamma`, the same loss. Tests hold
        both equal in value and gradient.

        Also in LLaMA-Factory (`pref_loss: simpo`), align-anything.

    Differs from the source:
        1. The default learning rate suits LoRA adapters (the paper tunes 3e-7 to 1e-6 for full fine-tuning).
    """
    chosen = beta * logps.chosen_mean
    rejected = beta * logps.rejected_mean
    return Loss(-logsigmoid(chosen - rejected - gamma), chosen_rewards=chosen, rejected_rewards=rejected)
