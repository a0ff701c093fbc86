from typing import Annotated

from annotated_types import Gt
from torch.nn.functional import relu

from align_bench.api import Loss, Range, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2309.06657",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    at_reference=1.0,
    normalised=False,
)
def hinge(logps: ReferencedPairLogps, *, beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1) -> Loss:
    """Hinge loss on the margin of the implicit rewards: a pair whose margin has reached 1 is left alone.

    Equation:
        max(0, 1 − β(ρ_w − ρ_l)),  ρ = s_policy − s_ref;  1 at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference.
        beta: strength of the pull towards the reference, per nat; a margin of 1/β nats is enough.

    Returns:
        Per-example loss and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Liu et al. 2023 (RSO), the loss called hinge-norm; `slic` is the one without a reference.

        In TRL: DPOTrainer with `loss_type="hinge"`, the same loss. TRL cites SLiC for it, whose loss reads no
        reference. Tests hold both equal in value and gradient.

        Also in LLaMA-Factory (`pref_loss: hinge`).

    Differs from the source:
        1. The pairs are those of the data; the paper samples new ones from an estimate of the best policy.
        2. The default learning rate suits LoRA adapters (about ten times that of full fine-tuning).
    """
    chosen = beta * (logps.chosen - logps.ref_chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected)
    return Loss(relu(1 - (chosen - rejected)), chosen_rewards=chosen, rejected_rewards=rejected)
