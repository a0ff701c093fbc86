from typing import Annotated

from annotated_types import Gt

from align_bench.api import Loss, Range, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2310.12036",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="ρ̄",
    at_reference=lambda tau: 1 / (4 * tau**2),
    normalised=True,
)
def ipo(logps: ReferencedPairLogps, *, tau: Annotated[float, Gt(0), Range(0.01, 1)] = 0.1) -> Loss:
    """Identity Preference Optimization: squared distance of the log-ratio margin from a target that it cannot outrun.

    Equation:
        (ρ̄_w − ρ̄_l − 1/(2τ))²,  ρ̄ = (s_policy − s_ref) / |y|;  1/(4τ²) at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference, and token counts.
        tau: strength of the pull towards the reference, per nat per token; the margin aims at 1/(2τ). The paper uses
            0.1 to 1.

    Returns:
        Per-example loss and the rewards ρ̄ (nats per token), each of shape [rows].

    Source:
        Azar et al. 2023, equation 17.

        In TRL: DPOTrainer with `loss_type="ipo"` and τ as `beta`, the same loss. Tests hold both equal in value and
        gradient.

        Also in LLaMA-Factory (`pref_loss: ipo`), OpenRLHF (`--ipo`, with sums).

    Differs from the source:
        1. Log-ratios are means over tokens, not sums: the equation leaves it open, the authors confirmed means to the
           implementers of TRL, whose loss this is; the DPO repository and OpenRLHF take sums under the same name.
        2. The default learning rate suits LoRA adapters.
    """
    chosen = (logps.chosen - logps.ref_chosen) / logps.chosen_tokens
    rejected = (logps.rejected - logps.ref_rejected) / logps.rejected_tokens
    values = (chosen - rejected - 1 / (2 * tau)).square()
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
