import math
from typing import Annotated

from annotated_types import Ge, Gt, Lt
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
def cdpo(
    logps: ReferencedPairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1,
    flip_rate: Annotated[float, Ge(0), Lt(0.5), Range(0.05, 0.4)] = 0.1,
) -> Loss:
    """Conservative DPO: DPO against labels of which a share is taken to be flipped (label smoothing).

    Equation:
        −(1 − ε) log σ(h) − ε log σ(−h),  h = β(ρ_w − ρ_l);  ln 2 at π = ref, least where σ(h) = 1 − ε

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference.
        beta: strength of the pull towards the reference, per nat.
        flip_rate: ε, share of the labels that are wrong, no unit; 0 is DPO.

    Returns:
        Per-example loss and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Mitchell 2023, "A note on DPO with noisy preferences and relationship to IPO"; DPO itself is
        Rafailov et al. 2023.

        Tests hold it to its equation, computed one number at a time.

        Also in LLaMA-Factory (`dpo_label_smoothing`), OpenRLHF (`--label_smoothing`).

    Differs from the source:
        1. The default learning rate suits LoRA adapters (about ten times that of full fine-tuning).
    """
    chosen = beta * (logps.chosen - logps.ref_chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected)
    margin = chosen - rejected
    values = -(1 - flip_rate) * logsigmoid(margin) - flip_rate * logsigmoid(-margin)
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
