import math
from typing import Annotated

import torch
from annotated_types import Gt
from torch.nn.functional import logsigmoid

from align_bench.api import BatchUnpairedLogps, Loss, MatchedUnpairedLogps, Range, Running, algorithm


def mean_reward(before: Running, batch: MatchedUnpairedLogps, *, beta: float) -> Running:
    """The mean reward of all answers so far, and how many they are."""
    rewards = beta * (batch.logps - batch.ref_logps).double()
    seen = before.get("answers", 0) + len(batch)
    mean = before.get("mean", 0.0)
    return {"mean": mean + (float(rewards.mean()) - mean) * len(batch) / seen, "answers": seen}


@algorithm(
    paper="arXiv:2404.04656",
    learning_rate=5e-5,
    learning_rate_range=(5e-6, 5e-4),
    reward="β·ρ",
    at_reference=math.log(2),
    normalised=False,
    running=mean_reward,
)
def bco(logps: BatchUnpairedLogps, *, beta: Annotated[float, Gt(0), Range(0.01, 0.5)] = 0.1) -> Loss:
    """Binary Classifier Optimization: each answer is classified by itself, against the mean reward so far.

    Equation:
        desirable −log σ(β·ρ − δ), undesirable −log σ(δ − β·ρ),  ρ = s_policy − s_ref,
        δ = mean of β·ρ over all answers of all batches so far, no gradient;  ln 2 at π = ref

    Args:
        logps: sums of response log-probabilities, nats, shape [rows], their reference, and the whole batch's.
        beta: strength of the pull towards the reference, per nat; 0.01 to 0.1 in the paper.

    Returns:
        Per-example loss and the implicit rewards β·ρ, each of shape [rows].

    Source:
        Jung et al. 2024, the loss of theorem 3 with the reward shift δ.

        In TRL: BCOTrainer of earlier versions (1.16 has none) without `prompt_sample_size`; the same loss and the same
        running mean, with the current batch in it.

        Tests hold it to its equation, computed one number at a time.

    Differs from the source:
        1. δ is the mean over all answers, as in TRL. The paper's is half the sum of the mean of desirable answers and
           that of undesirable ones, which is another number where one kind is more frequent.
        2. The weights for prompts that differ between both kinds (the paper's section on unmatched prompts) are left
           out.
        3. δ is updated once for each effective batch, not for each micro-batch. A forward pass over the batch pays for
           that.
        4. The default learning rate suits LoRA adapters.
    """
    reward = beta * (logps.logps - logps.ref_logps)
    shift = logps.running["mean"]
    values = -logsigmoid(torch.where(logps.desirable, reward - shift, shift - reward))
    return Loss(values, rewards=reward, metrics={"shift": torch.full_like(values, shift)})
