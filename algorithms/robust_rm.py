from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch.nn.functional import logsigmoid

from align_bench.api import Adversary, AdversaryScores, Loss, algorithm


@algorithm(
    paper="arXiv:1605.07725",
    learning_rate=1e-4,
    learning_rate_range=(1e-5, 5e-4),
    reward="r",
    auxiliary=lambda epsilon: Adversary(epsilon=epsilon),
)
def robust_rm(
    scores: AdversaryScores,
    *,
    epsilon: Annotated[float, Gt(0)] = 0.1,
    adversarial_weight: Annotated[float, Gt(0), Le(1)] = 0.5,
    centering: Annotated[float, Ge(0)] = 0.01,
) -> Loss:
    """Robust reward model: Bradley–Terry on the clean pair and on its worst small perturbation (max–min).

    Equation:
        −(1 − α)·log σ(r(e_w) − r(e_l)) − α·log σ(r(e_w + δ_w) − r(e_l + δ_l)) + c·(r_w + r_l)²,
        δ_w = −ε‖e_w‖·g_w/‖g_w‖,  δ_l = ε‖e_l‖·g_l/‖g_l‖,  g = ∂r/∂e,  e: input embeddings

    Args:
        scores: scalar-head scores, clean and under attack, no unit, shape [rows].
        epsilon: ε, norm of the perturbation of an answer with its prompt, × the norm of its embeddings.
        adversarial_weight: α, weight of the attacked pair, no unit; 1 trains on attacked pairs alone.
        centering: c, weight of the term that keeps scores near 0, no unit; as in rm.

    Returns:
        Per-example loss and the clean scores as rewards, each of shape [rows].

    Source:
        The max–min loss of Madry et al. 2018 (arXiv:1706.06083) with the one-step inner maximum on embeddings of Miyato
        et al. 2017, equation 5, on the Bradley–Terry loss.

        Tests hold it to its equation, computed one number at a time.

    Differs from the source:
        1. The radius is relative to each answer's own embeddings, so that it means the same for every base.
    """
    clean = -logsigmoid(scores.chosen - scores.rejected)
    attacked = -logsigmoid(scores.adversarial_chosen - scores.adversarial_rejected)
    values = (1 - adversarial_weight) * clean + adversarial_weight * attacked
    margin = (scores.adversarial_chosen - scores.adversarial_rejected).detach()
    return Loss(
        values + centering * (scores.chosen + scores.rejected).square(),
        chosen_rewards=scores.chosen,
        rejected_rewards=scores.rejected,
        metrics={"adversarial_accuracy": 0.5 * (margin.sign() + 1)},
    )
