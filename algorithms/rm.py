import math
from typing import Annotated

from annotated_types import Ge
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, PairScores, Range, algorithm


@algorithm(
    paper="arXiv:2203.02155",
    learning_rate=1e-4,
    learning_rate_range=(1e-5, 5e-4),
    reward="r",
    at_reference=math.log(2),
)
def rm(scores: PairScores, *, centering: Annotated[float, Ge(0), Range(0, 0.01)] = 0.01) -> Loss:
    """Bradley–Terry reward model: logistic loss on the difference of the two scores.

    Equation:
        −log σ(r_w − r_l) + c·(r_w + r_l)²

    Args:
        scores: scalar-head scores, no unit, shape [rows].
        centering: c, weight of the term that keeps scores near 0, no unit; TRL advises 0.01, the paper has none.

    Returns:
        Per-example loss and the scores as rewards, each of shape [rows].

    Source:
        Ouyang et al. 2022, equation 1; the centring term is Eisenstein et al. 2023 (arXiv:2312.09244), as in TRL.

        In TRL: RewardTrainer with the centring as `center_rewards_coefficient`, the same loss. Tests hold both equal in
        value and gradient.

        Also in LLaMA-Factory (`stage: rm`), OpenRLHF, align-anything.

    Differs from the source:
        1. Pairs are independent rows; Ouyang et al. average over all pairs of a ranking of one prompt.
    """
    difference = scores.chosen - scores.rejected
    values = -logsigmoid(difference) + centering * (scores.chosen + scores.rejected).square()
    return Loss(values, chosen_rewards=scores.chosen, rejected_rewards=scores.rejected)
