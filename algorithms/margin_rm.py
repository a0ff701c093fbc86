import math
from typing import Annotated

from annotated_types import Ge, Gt
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, MarginPairScores, Range, algorithm


@algorithm(
    paper="arXiv:2307.09288",
    learning_rate=1e-4,
    learning_rate_range=(1e-5, 5e-4),
    reward="r",
    at_reference=lambda scale: math.log1p(math.exp(scale)),
)
def margin_rm(
    scores: MarginPairScores,
    *,
    scale: Annotated[float, Gt(0), Range(0.1, 3)] = 1.0,
    centering: Annotated[float, Ge(0), Range(0, 0.01)] = 0.01,
) -> Loss:
    """Margin reward model: Bradley–Terry, where a clearly better answer has to score higher by the data's margin.

    Equation:
        −log σ(r_w − r_l − λ·m) + c·(r_w + r_l)²

    Args:
        scores: scalar-head scores, no unit, shape [rows], and the data's margin m.
        scale: λ, score per unit of the data's margin, no unit; 1 takes margins as they are, as the source and TRL do.
        centering: c, weight of the term that keeps scores near 0, no unit; as in rm.

    Returns:
        Per-example loss and the scores as rewards, each of shape [rows].

    Source:
        Touvron et al. 2023 (Llama 2), equation 2; the centring term is Eisenstein et al. 2023 (arXiv:2312.09244), as in
        TRL's RewardTrainer, which subtracts a column `margin` likewise.

        In TRL: RewardTrainer on rows with a column `margin`, the same loss at a scale of 1. Tests hold both equal in
        value and gradient.

    Differs from the source:
        1. The margin is any number of the data's. Llama 2 has one for each of four ratings, from "significantly better"
           to "negligibly better": 1, 2/3, 1/3 and 0, or 3, 2, 1 and 0. Scale does the same for margins of other units.
        2. The centring term, which the source does not have.
    """
    values = -logsigmoid(scores.chosen - scores.rejected - scale * scores.margin)
    return Loss(
        values + centering * (scores.chosen + scores.rejected).square(),
        chosen_rewards=scores.chosen,
        rejected_rewards=scores.rejected,
    )
