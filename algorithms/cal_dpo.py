import math
from typing import Annotated

from annotated_types import Ge, Gt
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2412.14516",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="ρ",
    at_reference=lambda beta, calibration_weight: math.log(2) + calibration_weight / (2 * beta**2),
    normalised=False,
)
def cal_dpo(
    logps: ReferencedPairLogps,
    *,
    beta: Annotated[float, Gt(0)] = 0.002,
    calibration_weight: Annotated[float, Ge(0)] = 0.5,
) -> Loss:
    """Calibrated DPO: DPO whose log-ratios are also drawn to a target of their own, so that their scale has a meaning.

    So the chosen answer's likelihood rises, where DPO alone may let both answers sink.

    Equation:
        −log σ(ρ_w − ρ_l) + c·[(ρ_w − 1/(2β))² + (ρ_l + 1/(2β))²],  ρ = s_policy − s_ref;  ln 2 + c/(2β²) at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference.
        beta: strength of the pull towards the reference, per nat; the log-ratios aim at ±1/(2β) nats. The authors' run
            has 0.002.
        calibration_weight: c, weight of the squared distances, per nat squared; 0.5 in the authors' code. 0 is DPO at
            a beta of 1.

    Returns:
        Per-example loss and the rewards ρ (nats), each of shape [rows].

    Source:
        Xiao et al. 2024, with the weight of the authors' code. The logistic term has no β in either.

        Not in TRL.

        Tests hold it to its equation, computed one number at a time.

    Differs from the source:
        1. The default learning rate suits LoRA adapters (5e-7 in the authors' run, all weights trained).
    """
    chosen, rejected = logps.chosen - logps.ref_chosen, logps.rejected - logps.ref_rejected
    target = 1 / (2 * beta)
    distances = (chosen - target).square() + (rejected + target).square()
    values = -logsigmoid(chosen - rejected) + calibration_weight * distances
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
