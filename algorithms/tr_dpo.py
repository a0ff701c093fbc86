import math
from typing import Annotated

from annotated_types import Ge, Gt
from torch.nn.functional import logsigmoid

from align_bench.api import Loss, Range, ReferencedPairLogps, algorithm


@algorithm(
    paper="arXiv:2404.09656",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    at_reference=math.log(2),
    normalised=False,
    moving_reference=lambda sync_steps: sync_steps,
)
def tr_dpo(
    logps: ReferencedPairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1,
    sync_steps: Annotated[int, Ge(1), Range(8, 512)] = 16,
) -> Loss:
    """Trust Region DPO: DPO whose reference becomes the policy every so many steps.

    Equation:
        −log σ(β(ρ_w − ρ_l)),  ρ = s_policy − s_ref;  ref ← policy after every τ optimizer steps;  ln 2 at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference as it stands.
        beta: strength of the pull towards the reference, per nat; 0.05 in the paper.
        sync_steps: τ, optimizer steps from one update of the reference to the next; 512 in the paper. The default suits
            trainings of a few thousand rows. A training of no more steps than τ is DPO.

    Returns:
        Per-example loss and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Gorbatovski et al. 2024, section 3, the hard update.

        In TRL: DPOTrainer with `sync_ref_model=True`, `ref_model_mixup_alpha=1.0` and `ref_model_sync_steps` τ, for
        models without adapters.

        Tests hold it to a training with two whole models, one of which is copied to the other every τ steps.

    Differs from the source:
        1. The soft update, ref ← α·policy + (1−α)·ref, is not offered. It mixes weights, and here the weights that are
           trained are the two factors of an adapter: the mean of factors is not the mean of their products. The copy
           of an adapter is exact.
        2. TRL mixes the parameters every 512 steps with α = 0.6 by default, and refuses models with a peft adapter.
        3. Until the first update the reference is the stored one: the start, or with `reference_policy: base` the base.
           Rewards of validation pairs are measured against it after training, too, not against the last reference.
        4. An update costs no pass, but from the first one on each step has one more forward pass.
        5. The default learning rate suits LoRA adapters.
    """
    chosen = beta * (logps.chosen - logps.ref_chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected)
    return Loss(-logsigmoid(chosen - rejected), chosen_rewards=chosen, rejected_rewards=rejected)
