from typing import Annotated

import torch
from annotated_types import Ge, Gt

from align_bench.api import Advantages, Experience, Loss, Rollouts, RolloutSettings, online


def group_normalised(experience: Experience) -> Advantages:
    """Each answer's reward in standard deviations from the mean of its prompt's answers."""
    rewards = experience.rewards
    same = (experience.group[:, None] == experience.group).to(rewards)
    count = same.sum(1)
    mean = same @ rewards / count
    variance = (same * (rewards[None] - mean[:, None]).square()).sum(1) / (count - 1).clamp(min=1)
    return Advantages(((rewards - mean) / (variance.sqrt() + 1e-4))[:, None] * experience.mask)


@online(
    paper="arXiv:2402.03300",
    learning_rate=1e-5,
    learning_rate_range=(1e-6, 1e-4),
    advantage=group_normalised,
    rollout=RolloutSettings(samples=8),
)
def grpo(rollouts: Rollouts, *, clip: Annotated[float, Gt(0)] = 0.2, kl_coef: Annotated[float, Ge(0)] = 0.04) -> Loss:
    """Group Relative Policy Optimization: clipped token ratios, rewards normalised within each prompt's answers.

    Equation:
        mean over the answer's tokens of max(−A·u, −A·clamp(u, 1 ± ε)) + κ(e^d − d − 1),  u = π/π_old,
        d = log π_ref − log π;  A = (r − mean) / std over the answers to the prompt

    Args:
        rollouts: answers that the policy wrote, token by token, shape [rows, time], in nats.
        clip: ε, how far the probability ratio of a token counts, no unit.
        kl_coef: κ, weight of the KL estimate, in normalised rewards per nat; 0.04 in the paper.

    Returns:
        Per-example loss of shape [rows].

    Source:
        Shao et al. 2024, equations 3 and 4.

        In TRL: GRPOTrainer with `loss_type="grpo"` and `use_bias_correction_kl=False`, the same advantages and loss.
        Tests hold both equal in value and gradient.

        Also in OpenRLHF, align-anything.

    Differs from the source:
        1. The standard deviation is the unbiased one, and 1e-4 keeps it off 0, as in TRL.
        2. The default learning rate suits LoRA adapters (1e-6 in the paper).
        3. As in the paper, the KL estimate is not multiplied by the ratio; TRL 1.16 does so by default
           (`use_bias_correction_kl`).
    """
    ratio = (rollouts.logps - rollouts.old_logps).exp()
    advantages = rollouts.advantages
    surrogate = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))
    back = rollouts.ref_logps - rollouts.logps
    drift = back.exp() - back - 1
    tokens = rollouts.mask.sum(1)
    outside = ((ratio - 1).abs() > clip) & rollouts.mask
    return Loss(
        ((surrogate + kl_coef * drift) * rollouts.mask).sum(1) / tokens,
        metrics={"clip_fraction": outside.sum(1) / tokens},
    )
