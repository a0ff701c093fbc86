from typing import Annotated

from annotated_types import Ge, Gt
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, Range, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2403.19159",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ + α·|y|",
)
def ldpo(
    logps: ReferencedPairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.1)] = 0.1,
    alpha: Annotated[float, Ge(0), Range(0.05, 1)] = 0.05,
) -> Loss:
    """Length-regularised DPO: DPO whose margin is relieved of the part that length alone explains.

    Equation:
        −log σ(β(ρ_w − ρ_l) + α(|y_w| − |y_l|));  α = 0 is DPO

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference, and token counts.
        beta: strength of the pull towards the reference, per nat.
        alpha: α, price of a token, in units of the reward; SimPO's comparison (arXiv:2405.14734) tunes it in 0.05 to 1.

    Returns:
        Per-example loss and the rewards β·ρ + α·|y|, each of shape [rows].

    Source:
        Park et al. 2024, section 3, where it is called R-DPO; `rdpo` here is robust DPO. The policy that maximises
        r − α|y| with a KL penalty has r = β·ρ + α|y| + const, which Bradley–Terry is applied to.

        Tests hold it to its equation, computed one number at a time.

    Differs from the source:
        1. The default learning rate suits LoRA adapters.
    """
    chosen = beta * (logps.chosen - logps.ref_chosen) + alpha * logps.chosen_tokens.to(logps.chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected) + alpha * logps.rejected_tokens.to(logps.rejected)
    return Loss(-logsigmoid(chosen - rejected), chosen_rewards=chosen, rejected_rewards=rejected)
