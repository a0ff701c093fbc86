import math
from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, PrefixPairLogps, Range, algorithm


@algorithm(
    paper="arXiv:2409.06411",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    at_reference=math.log(2),
    normalised=False,
)
def ld_dpo(
    logps: PrefixPairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1,
    alpha: Annotated[float, Ge(0), Le(1), Range(0.1, 1)] = 0.5,
) -> Loss:
    """Length-Desensitized DPO: tokens beyond the shorter answer's length weigh less.

    Equation:
        −log σ(β(ρ'_w − ρ'_l)),  ρ' = α·ρ + (1−α)·ρ_first,  ρ = s_policy − s_ref, ρ_first the same over an answer's
        first min(|y_w|, |y_l|) tokens;  ln 2 at π = ref;  α = 1 is DPO

    Args:
        logps: sums of response log-probabilities, of whole answers and of their first tokens, nats, shape [rows], with
            their reference.
        beta: strength of the pull towards the reference, per nat; 0.1 in the paper.
        alpha: weight of the tokens beyond the shorter answer's length, no unit; the paper tunes it per model, 0.1 to 1.

    Returns:
        Per-example loss and the implicit rewards β·ρ of whole answers, each of shape [rows].

    Source:
        Liu et al. 2024, section 4, equations of the modified likelihood.

        In TRL: DPOTrainer with `loss_type="sigmoid"`, α as `ld_alpha`, the same loss; it notes β·ρ' as rewards. Tests
        hold both equal in value and gradient.

    Differs from the source:
        1. The rewards are of whole answers, all tokens alike: α weighs the loss only.
        2. The default learning rate suits LoRA adapters.
    """
    chosen, rejected = logps.chosen - logps.ref_chosen, logps.rejected - logps.ref_rejected
    first = logps.prefix_chosen - logps.ref_prefix_chosen - logps.prefix_rejected + logps.ref_prefix_rejected
    margin = beta * (alpha * (chosen - rejected) + (1 - alpha) * first)
    return Loss(-logsigmoid(margin), chosen_rewards=beta * chosen, rejected_rewards=beta * rejected)
