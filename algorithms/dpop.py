import math
from typing import Annotated

from annotated_types import Ge, Gt
from torch.nn.functional import logsigmoid, relu

from align_bench.api import Loss, Range, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2402.13228",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β(ρ − λ·max(0, −ρ)) if chosen, β·ρ if rejected",
    at_reference=math.log(2),
    normalised=False,
)
def dpop(
    logps: ReferencedPairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.3,
    penalty: Annotated[float, Ge(0)] = 50.0,
) -> Loss:
    """DPO-Positive: DPO with a penalty on chosen answers that become less likely than under the reference.

    Equation:
        −log σ(β(ρ_w − ρ_l − λ·max(0, −ρ_w))),  ρ = s_policy − s_ref;  ln 2 at π = ref;  λ = 0 is DPO

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference.
        beta: strength of the pull towards the reference, per nat; the paper uses 0.3.
        penalty: λ, weight of the penalty, no unit; the paper uses 50.

    Returns:
        Per-example loss, and the rewards β(ρ − λ·max(0, −ρ)) of chosen and β·ρ of rejected answers, each of shape
        [rows].

    Source:
        Pal et al. 2024 (Smaug), the loss called DPOP. Equation and constants were checked against an implementation of
        others on TRL's trainer, not against the authors' code.

        Not in TRL.

        Tests hold it to its equation, computed one number at a time.

    Differs from the source:
        1. The default learning rate suits LoRA adapters (about ten times that of full fine-tuning).
    """
    chosen_ratio = logps.chosen - logps.ref_chosen
    chosen = beta * (chosen_ratio - penalty * relu(-chosen_ratio))
    rejected = beta * (logps.rejected - logps.ref_rejected)
    return Loss(-logsigmoid(chosen - rejected), chosen_rewards=chosen, rejected_rewards=rejected)
