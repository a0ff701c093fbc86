from typing import Annotated

import torch
from annotated_types import Ge, Gt

from align_bench.api import Advantages, Experience, Loss, Rollouts, RolloutSettings, online


def leave_one_out(experience: Experience, *, kl_coef: Annotated[float, Ge(0)] = 0.05) -> Advantages:
    """Each answer's reward, KL penalty included, over the mean of the other answers to its prompt."""
    drift = (experience.logps - experience.ref_logps).sum(1)
    rewards = experience.rewards - kl_coef * drift
    same = (experience.group[:, None] == experience.group).to(rewards)
    others = same.sum(1) - 1
    mean = (same @ rewards - rewards) / others.clamp(min=1)
    over = torch.where(others > 0, rewards - mean, torch.zeros_like(rewards))
    return Advantages(over[:, None] * experience.mask)


@online(
    paper="arXiv:2402.14740",
    learning_rate=1e-5,
    learning_rate_range=(1e-6, 1e-4),
    advantage=leave_one_out,
    rollout=RolloutSettings(samples=4),
)
def rloo(rollouts: Rollouts, *, clip: Annotated[float, Gt(0)] = 0.2) -> Loss:
    """REINFORCE Leave-One-Out: policy gradient on whole answers, the other answers to the prompt as baseline.

    Equation:
        max(−A·u, −A·clamp(u, 1 ± ε)),  u = π(y|x)/π_old(y|x);  A_i = R_i − mean_{j≠i} R_j,
        R = r − κ Σ_t (log π_old − log π_ref);  at u = 1 its gradient is −A·∇s

    Args:
        rollouts: answers that the policy wrote, token by token, shape [rows, time], in nats.
        clip: ε, how far the probability ratio of an answer counts, no unit; matters with more than one update only.
        kl_coef: κ, price of a nat away from the reference, in the reward's unit.

    Returns:
        Per-example loss of shape [rows].

    Source:
        Ahmadian et al. 2024, equations 6 and 9.

        In TRL: RLOOTrainer, the same advantages and loss. Tests hold both equal in value and gradient.

    Differs from the source:
        1. The clipped ratio, as in TRL, allows several updates per batch; with one, the gradient is the paper's.
        2. A prompt with a single sample has no baseline and adds nothing.
        3. The default learning rate suits LoRA adapters.
    """
    ratio = (rollouts.logps - rollouts.old_logps).sum(1).exp()
    advantage = rollouts.advantages[:, 0]  # the same at every token
    values = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))
    return Loss(values, metrics={"clip_fraction": ((ratio - 1).abs() > clip).to(ratio)})
