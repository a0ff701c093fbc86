import math
from typing import Annotated

from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torch.nn.functional import logsigmoid

from align_bench.api import BatchPairLogps, Loss, Range, algorithm


@algorithm(
    paper="arXiv:2406.05882",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    at_reference=math.log(2),
    normalised=False,
)
def aot_unpaired(
    logps: BatchPairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1,
    flip_rate: Annotated[float, Ge(0), Lt(0.5)] = 0.0,
) -> Loss:
    """Alignment via Optimal Transport, unpaired: each quantile of chosen log-ratios above that of rejected ones.

    It reads pairs, but does not use which chosen answer belongs to which rejected one.

    Equation:
        −(1−ε) log σ(β·d) − ε log σ(−β·d),  d_i = ρ_w,(i) − ρ_l,(i),  ρ = s_policy − s_ref, (i) the i-th in order of
        size over the effective batch;  ln 2 at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference, and the whole batch's.
        beta: strength of the pull towards the reference, per nat; 0.01 in the paper, for all weights.
        flip_rate: ε, expected share of wrong labels, no unit.

    Returns:
        Per-example loss and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Melnyk et al. 2024, the unpaired form with the logistic loss.

        In TRL: DPOTrainer with `loss_type="aot_unpaired"`, the same loss, over a batch of one device. Tests hold both
        equal in value and gradient.

    Differs from the source:
        1. Log-ratios are sorted over the effective batch, not over a micro-batch. A forward pass over the batch pays
           for that. Each row takes the loss of its chosen answer's quantile and the gradients of both of its answers',
           so that the sum over the batch has the value and the gradient of the equation.
        2. The paper also has a hinge and a squared loss, and a soft sort; here the sort is hard, as in TRL.
        3. The default learning rate suits LoRA adapters.
    """

    def loss(distance: Tensor) -> Tensor:
        return -(1 - flip_rate) * logsigmoid(beta * distance) - flip_rate * logsigmoid(-beta * distance)

    batch = logps.batch
    all_chosen, all_rejected = batch.chosen - batch.ref_chosen, batch.rejected - batch.ref_rejected
    beside_chosen = all_rejected.sort().values[all_chosen.argsort().argsort()[logps.place]]
    beside_rejected = all_chosen.sort().values[all_rejected.argsort().argsort()[logps.place]]
    chosen, rejected = logps.chosen - logps.ref_chosen, logps.rejected - logps.ref_rejected
    # Over the batch, the last term is the sum of the second one, without its gradient.
    counted = loss(beside_rejected - all_rejected[logps.place])
    values = loss(chosen - beside_chosen) + loss(beside_rejected - rejected) - counted
    return Loss(values, chosen_rewards=beta * chosen, rejected_rewards=beta * rejected)
