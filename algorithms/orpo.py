from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, PairLogps, Range, algorithm


@algorithm(
    paper="arXiv:2403.07691",
    learning_rate=5e-5,
    learning_rate_range=(1e-5, 5e-4),
    reward="λ·s̄",
    normalised=True,
    uses_rejected=lambda lambda_: lambda_ > 0,
)
def orpo(logps: PairLogps, *, lambda_: Annotated[float, Ge(0), Range(0.1, 1)] = 0.1) -> Loss:
    """Odds Ratio Preference Optimization: likelihood of the chosen answer plus a penalty on the odds ratio.

    Equation:
        −s̄_w − λ·log σ(logit e^s̄_w − logit e^s̄_l),  logit e^a = a − log(1 − e^a)

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], and token counts; no reference is read.
        lambda_: weight of the odds-ratio term, no unit; the paper uses 0.1 to 1.

    Returns:
        Per-example loss and the rewards λ·s̄ (nats per token, scaled), each of shape [rows].

    Source:
        Hong et al. 2024, equations 6 and 7.

        In TRL: ORPOTrainer with λ as `beta`; its likelihood term is a mean over all tokens of a batch, prompts
        included. Tests hold both equal in value and gradient, but for the likelihood term.

        Also in LLaMA-Factory (`pref_loss: orpo`, of the answer only), align-anything.

    Differs from the source:
        1. The likelihood term covers the answer only, as in the paper's text; the authors' code (and TRL) covers the
           prompt too.
        2. The log-odds are computed in 32 bits or more, with the argument of log1mexp kept off 0, where it has a pole.
    """
    chosen, rejected = logps.chosen_mean, logps.rejected_mean
    odds_ratio = _log_odds(chosen) - _log_odds(rejected)
    return Loss(
        -chosen - lambda_ * logsigmoid(odds_ratio),
        chosen_rewards=lambda_ * chosen,
        rejected_rewards=lambda_ * rejected,
        metrics={"log_odds_ratio": odds_ratio},
    )


def _log_odds(mean_logp: Tensor) -> Tensor:
    """`a − log(1 − e^a)` for a ≤ 0, in 32 bits or more; exact near 0 through expm1."""
    mean_logp = mean_logp.to(torch.promote_types(mean_logp.dtype, torch.float32))
    off_zero = mean_logp.clamp(max=-torch.finfo(mean_logp.dtype).eps)
    return mean_logp - torch.log(-torch.expm1(off_zero))
