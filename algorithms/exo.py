import math
from typing import Annotated

from annotated_types import Gt, Lt
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, Range, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2402.00856",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    at_reference=lambda flip_rate: -math.log(2) - (math.log1p(-flip_rate) + math.log(flip_rate)) / 2,
    normalised=False,
)
def exo(
    logps: ReferencedPairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1,
    flip_rate: Annotated[float, Gt(0), Lt(0.5)] = 1e-3,
) -> Loss:
    """Efficient Exact Optimization on pairs: reverse KL from the policy's preference to the label's, smoothed by ε.

    Equation:
        q·log(q / (1 − ε)) + (1 − q)·log((1 − q) / ε),  q = σ(β(ρ_w − ρ_l));  least where q = 1 − ε;
        −ln 2 − ½ ln(ε(1 − ε)) at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference.
        beta: strength of the pull towards the reference, per nat; 0.1 in the paper.
        flip_rate: ε, probability that a label is wrong, which keeps the divergence finite; 1e-3 in the paper.

    Returns:
        Per-example loss, a KL divergence in nats, and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Ji et al. 2024, EXO-pref, equation 16.

        In TRL: DPOTrainer with `loss_type="exo_pair"` and ε as `label_smoothing`, the same loss. Tests hold both equal
        in value and gradient.

    Differs from the source:
        1. Two given answers per prompt; the paper also has the loss for more, with a reward model.
        2. The default learning rate suits LoRA adapters (1e-6 in the paper, all weights trained).
    """
    chosen = beta * (logps.chosen - logps.ref_chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected)
    log_q, log_rest = logsigmoid(chosen - rejected), logsigmoid(rejected - chosen)
    values = log_q.exp() * (log_q - math.log1p(-flip_rate)) + log_rest.exp() * (log_rest - math.log(flip_rate))
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
