import math
from typing import Annotated

from annotated_types import Gt
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, Range, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2402.05369",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    at_reference=2 * math.log(2),
    normalised=False,
)
def nca(logps: ReferencedPairLogps, *, beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.01) -> Loss:
    """Noise Contrastive Alignment on pairs: each answer against the reference, not only against the other answer.

    So the chosen answer's own likelihood rises, up to a log-ratio of (ln 2)/β nats, where its gradient ends.

    Equation:
        −log σ(r_w) − ½ log σ(−r_w) − ½ log σ(−r_l),  r = β·ρ;  2 ln 2 at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference.
        beta: strength of the pull towards the reference, per nat; 0.01 in the paper, which calls it α.

    Returns:
        Per-example loss and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Chen et al. 2024, the pairwise NCA loss of section 4.1.

        In TRL: DPOTrainer with `loss_type="nca_pair"`, the same loss. Tests hold both equal in value and gradient.

    Differs from the source:
        1. Two answers per prompt; the paper also has the loss for more, with rewards.
        2. The default learning rate suits LoRA adapters (5e-6 in the paper).
    """
    chosen = beta * (logps.chosen - logps.ref_chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected)
    values = -logsigmoid(chosen) - (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
