from typing import Annotated

from annotated_types import Ge, Gt

from align_bench.api import Loss, PairLogps, Range, algorithm


@algorithm(
    paper="arXiv:2310.12036",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="s̄",
    normalised=True,
)
def cpo_ipo(
    logps: PairLogps,
    *,
    tau: Annotated[float, Gt(0), Range(0.1, 1)] = 0.1,
    nll_weight: Annotated[float, Ge(0)] = 1.0,
) -> Loss:
    """IPO without a reference, held in place by the chosen answer's likelihood, as CPO is.

    Equation:
        (s̄_w − s̄_l − 1/(2τ))² − λ·s̄_w,  s̄ = s / |y|

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], and token counts; no reference is read.
        tau: inverse of twice the margin that is asked for, tokens per nat; 0.1 in IPO's paper.
        nll_weight: λ, weight of the likelihood term, no unit; 1 in CPO's paper.

    Returns:
        Per-example loss and the rewards s̄ (nats per token), each of shape [rows].

    Source:
        The squared loss of Azar et al. 2023, equation 17, in place of the logistic one of CPO (Xu et al. 2024,
        arXiv:2401.08417). No paper has both; TRL does.

        In TRL: CPOTrainer with `loss_type="ipo"`, τ as `beta` and λ as `cpo_alpha`; its likelihood term is a mean over
        all answer tokens of a batch. Tests hold both equal in value and gradient, but for the weight of long answers.

    Differs from the source:
        1. The likelihood term is a mean over the answer's tokens, then over answers, so that a long answer weighs no
           more than a short one.
        2. TRL notes β·s̄ as the rewards; τ scales no reward here, as in `ipo`.
        3. The default learning rate suits LoRA adapters.
    """
    chosen, rejected = logps.chosen_mean, logps.rejected_mean
    values = (chosen - rejected - 1 / (2 * tau)) ** 2 - nll_weight * chosen
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
