import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torch.nn.functional import logsigmoid

from align_bench.api import BatchPairLogps, Loss, Range, ReferencedPairLogps, Running, algorithm


def margins(batch: ReferencedPairLogps) -> Tensor:
    """ρ_w − ρ_l of each pair, nats, shape [rows]."""
    return batch.chosen - batch.ref_chosen - batch.rejected + batch.ref_rejected


def usual_margin(before: Running, batch: ReferencedPairLogps, *, momentum: float) -> Running:
    """M₀, the running mean of the batches' margins, nats; it starts at 0."""
    mean = float(margins(batch).double().mean())
    return {"mean": momentum * before.get("mean", 0.0) + (1 - momentum) * mean}


@algorithm(
    paper="arXiv:2407.08639",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β₀·ρ",
    at_reference=math.log(2),
    normalised=False,
    running=usual_margin,
)
def beta_dpo(
    logps: BatchPairLogps,
    *,
    beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1,
    alpha: Annotated[float, Ge(0), Range(0.2, 1)] = 0.6,
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9,
    filtered: Annotated[float, Ge(0), Lt(1)] = 0.2,
) -> Loss:
    """β-DPO: β grows where a batch's margins are wider than usual, and pairs of unusual margins are left out.

    Equation:
        −log σ(β(ρ_w − ρ_l)) of the pairs that are kept, × n / kept so that the batch's mean is theirs,
        β = max(0.001, β₀(1 + α(M − M₀))), M the mean of ρ_w − ρ_l over the pairs that are kept,
        M₀ ← m·M₀ + (1−m)·(the batch's mean), no gradient;  ln 2 at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], with their reference, and the whole batch's.
        beta: β₀, strength of the pull towards the reference at the usual margin, per nat; 0.1 in the paper.
        alpha: how far the margin moves β, per nat; 0.6 in the paper.
        momentum: m, share of the running mean that a batch leaves, no unit; 0.9 in the paper.
        filtered: share of a batch's pairs that is left out, no unit; 0.2 in the paper. What is kept is rounded up.

    Returns:
        Per-example loss and the implicit rewards β₀·ρ, each of shape [rows].

    Source:
        Wu et al. 2024, sections 4.1 and 4.2, and the authors' code (github.com/junkangwu/beta-DPO, `trainers.py`),
        where M₀ starts at 0 and has the current batch in it, and β is 0.001 or more.

        Tests hold it to its equation, computed one number at a time.

    Differs from the source:
        1. The authors draw the pairs that are kept, with a probability that falls with the distance from M₀ in
           deviations. Here those nearest to M₀ are kept, all of them where distances are equal: no chance takes part.
        2. Margins are log-ratios in nats, as in the authors' code. The paper writes them as rewards, × β₀.
        3. The default learning rate suits LoRA adapters.
    """
    found = margins(logps.batch)
    kept = len(found) - math.floor(len(found) * filtered + 1e-9)  # 10 × 0.7 is a little below 7 in floats
    far = (found - logps.running["mean"]).abs()
    near = far <= far.sort().values[kept - 1]
    mean = torch.where(near, found, 0.0).sum() / near.sum()
    strength = (beta * (1 + alpha * (mean - logps.running["mean"]))).clamp(min=1e-3)
    chosen, rejected = logps.chosen - logps.ref_chosen, logps.rejected - logps.ref_rejected
    values = -logsigmoid(strength * (chosen - rejected)) * len(found) / near.sum()
    return Loss(
        torch.where(near[logps.place], values, 0.0),
        chosen_rewards=beta * chosen,
        rejected_rewards=beta * rejected,
        metrics={"beta": strength.expand_as(values)},
    )
