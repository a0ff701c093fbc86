import math
from typing import Annotated

from annotated_types import Gt
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, Range, ReferencedMarginPairLogps, algorithm


@algorithm(
    paper="arXiv:2402.10571",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    at_reference=math.log(2),
    normalised=False,
)
def odpo(
    logps: ReferencedMarginPairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 1)] = 0.1,
    alpha: Annotated[float, Gt(0), Range(0.1, 1)] = 1.0,
) -> Loss:
    """DPO with an offset (ODPO): the better the chosen answer is by the data, the further apart the rewards have to be.

    Equation:
        −log σ(β(ρ_w − ρ_l) − α·ln m),  ρ = s_policy − s_ref;  ln 2 at π = ref and m = 1

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference and the data's margin m.
        beta: strength of the pull towards the reference, per nat; the authors' runs take 0.05 to 0.7.
        alpha: weight of the offset, no unit; DPO without it, and for rows with m = 1.

    Returns:
        Per-example loss and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Amini, Vieira and Cotterell 2024, with the offset of its experiments, α·log(score_w − score_l); the same in the
        authors' code (rycolab/odpo, `preference_loss` with `offset`), whose option `ratio` takes the logarithm of the
        ratio of both scores in its place.

        Tests hold it to its equation, computed one number at a time.

    Differs from the source:
        1. A margin below 1e-6 counts as 1e-6, so that a row whose scores are equal, or contradict its label, asks for
           next to nothing; the source's logarithm is infinite or undefined there.
        2. The paper allows any increasing function of the difference of the scores; here it is the logarithm alone.
        3. The default learning rate suits LoRA adapters (about ten times that of full fine-tuning).
    """
    chosen = beta * (logps.chosen - logps.ref_chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected)
    offset = alpha * logps.margin.clamp(min=1e-6).log()
    return Loss(
        -logsigmoid(chosen - rejected - offset),
        chosen_rewards=chosen,
        rejected_rewards=rejected,
        metrics={"offset": offset},
    )
