from typing import Annotated

from annotated_types import Gt

from align_bench.api import Loss, Range, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2405.00675",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="ρ",
    at_reference=lambda beta: 1 / (2 * beta**2),
    normalised=False,
)
def sppo_hard(logps: ReferencedPairLogps, *, beta: Annotated[float, Gt(0), Range(0.001, 0.01)] = 0.001) -> Loss:
    """Self-Play Preference Optimization with hard labels: either answer's log-ratio aims at a target of its own.

    Equation:
        (ρ_w − 1/(2β))² + (ρ_l + 1/(2β))²,  ρ = s_policy − s_ref;  1/(2β²) at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference.
        beta: β = 1/η, strength of the pull towards the reference, per nat; the log-ratios aim at ±1/(2β) nats. The
            authors' runs have 0.001 and 0.01.

    Returns:
        Per-example loss (nats squared) and the rewards ρ (nats), each of shape [rows].

    Source:
        Wu et al. 2024, equation 4.7, where the chosen answer's win probability is 1 and the rejected one's 0.

        In TRL: DPOTrainer with `loss_type="sppo_hard"`, the same loss. The authors' code takes half of it. Tests hold
        both equal in value and gradient.

    Differs from the source:
        1. One round on given pairs; the paper repeats it on answers that the policy itself wrote.
        2. Win probabilities are 1 and 0; the paper estimates them with a preference model (PairRM).
        3. The default learning rate suits LoRA adapters (5e-7 in the paper, all weights trained).
    """
    chosen, rejected = logps.chosen - logps.ref_chosen, logps.rejected - logps.ref_rejected
    target = 1 / (2 * beta)
    values = (chosen - target).square() + (rejected + target).square()
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
