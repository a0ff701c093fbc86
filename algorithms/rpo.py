from typing import Annotated

from annotated_types import Ge, Gt
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, Range, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2404.19733",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
)
def rpo(
    logps: ReferencedPairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1,
    nll_weight: Annotated[float, Ge(0), Range(0.25, 2)] = 1.0,
) -> Loss:
    """DPO with the chosen answer's likelihood: keeps what DPO alone lets sink, the chosen answer's own probability.

    Equation:
        −log σ(β(ρ_w − ρ_l)) − α·s̄_w,  s̄ = s / |y|

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference, and token counts.
        beta: strength of the pull towards the reference, per nat; the paper uses 0.1.
        nll_weight: α, weight of the likelihood term, no unit; the paper tries 0.25 to 2, 0 is DPO.

    Returns:
        Per-example loss and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Pang et al. 2024, equation 1 (Iterative Reasoning Preference Optimization); known as RPO in TRL and others.

        In TRL: DPOTrainer with `loss_type=["sigmoid", "sft"]` and λ in `loss_weights`; its likelihood term is a mean
        over all answer tokens of a batch. Tests hold both equal in value and gradient, but for the weight of long
        answers.

        Also in LLaMA-Factory (`pref_ftx`), OpenRLHF (`--nll_loss_coef`).

    Differs from the source:
        1. One round on given pairs; the paper repeats it on pairs that the policy itself wrote.
        2. The default learning rate suits LoRA adapters.
    """
    chosen = beta * (logps.chosen - logps.ref_chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected)
    values = -logsigmoid(chosen - rejected) - nll_weight * logps.chosen_mean
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
