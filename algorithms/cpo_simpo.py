from typing import Annotated

from annotated_types import Ge, Gt
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, PairLogps, Range, algorithm


@algorithm(
    paper="arXiv:2401.08417",
    learning_rate=1e-5,
    learning_rate_range=(3e-6, 1e-4),
    reward="β·s̄",
    normalised=True,
)
def cpo_simpo(
    logps: PairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(2, 10)] = 10.0,
    gamma: Annotated[float, Ge(0), Range(0.25, 5.4)] = 5.4,
    nll_weight: Annotated[float, Ge(0)] = 0.05,
) -> Loss:
    """CPO-SimPO: SimPO with CPO's likelihood of the chosen answer, which holds it in place without a reference.

    Equation:
        −log σ(β(s̄_w − s̄_l) − γ) − λ·s̄_w,  s̄ = s / |y|;  λ = 0 is SimPO

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], and token counts; no reference is read.
        beta: reward scale, per nat per token; 10 in the authors' run on Llama-3-8B-Instruct.
        gamma: target reward margin, no unit; 5.4 in that run.
        nll_weight: λ, weight of the likelihood term, no unit; 0.05 in that run.

    Returns:
        Per-example loss and the rewards β·s̄, each of shape [rows].

    Source:
        The README and code of github.com/fe1ixxu/CPO_SIMPO, by the first author of CPO (Xu et al. 2024); the other part
        is SimPO (Meng et al. 2024, arXiv:2405.14734).

        In TRL: CPOTrainer with `loss_type="simpo"`, λ as `cpo_alpha` and γ as `simpo_gamma`; its likelihood term is a
        mean over all answer tokens of a batch, where long answers weigh more. Tests hold both equal in value and
        gradient, but for the weight of long answers.

    Differs from the source:
        1. The likelihood term is a mean over the answer's tokens, then over answers; the README writes the sum, its
           code takes the mean over all tokens of a batch.
        2. The default learning rate suits LoRA adapters, as SimPO's here.
    """
    chosen, rejected = beta * logps.chosen_mean, beta * logps.rejected_mean
    values = -logsigmoid(chosen - rejected - gamma) - nll_weight * logps.chosen_mean
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
