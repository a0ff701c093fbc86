import math
from typing import Annotated

from annotated_types import Ge, Gt, Lt
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
def aot(
    logps: BatchPairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1,
    flip_rate: Annotated[float, Ge(0), Lt(0.5)] = 0.0,
) -> Loss:
    """Alignment via Optimal Transport on pairs: each quantile of the policy's margins above that of the reference's.

    A row is compared with the reference's margin of its own rank in the batch, not with its own.

    Equation:
        −(1−ε) log σ(β·d) − ε log σ(−β·d),  d_i = m_(i) − m_ref,(i),  m = s_w − s_l, (i) the i-th in order of size over
        the effective batch;  ln 2 at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference, and the whole batch's.
        beta: strength of the pull towards the reference, per nat; 0.01 in the paper, for all weights.
        flip_rate: ε, expected share of wrong labels, no unit.

    Returns:
        Per-example loss and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Melnyk et al. 2024, the paired form with the logistic loss.

        In TRL: DPOTrainer with `loss_type="aot"`, the same loss, over a batch of one device. Tests hold both equal in
        value and gradient.

    Differs from the source:
        1. Margins are sorted over the effective batch, not over a micro-batch. A forward pass over the batch pays for
           that.
        2. The paper also has a hinge and a squared loss, and a soft sort; here the sort is hard, as in TRL.
        3. The default learning rate suits LoRA adapters.
    """
    batch = logps.batch
    rank = (batch.chosen - batch.rejected).argsort().argsort()
    known = (batch.ref_chosen - batch.ref_rejected).sort().values[rank[logps.place]]
    distance = beta * (logps.chosen - logps.rejected - known)
    values = -(1 - flip_rate) * logsigmoid(distance) - flip_rate * logsigmoid(-distance)
    chosen = beta * (logps.chosen - logps.ref_chosen)
    rejected = beta * (logps.rejected - logps.ref_rejected)
    return Loss(values, chosen_rewards=chosen, rejected_rewards=rejected)
