from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from align_bench.api import CriticAdvantages, CriticExperience, CriticRollouts, Loss, Range, RolloutSettings, online


def gae(
    experience: CriticExperience,
    *,
    kl_coef: Annotated[float, Ge(0), Range(0.02, 0.05)] = 0.05,
    discount: Annotated[float, Gt(0), Le(1)] = 1.0,
    gae_lambda: Annotated[float, Ge(0), Le(1)] = 0.95,
) -> CriticAdvantages:
    """Generalised advantage estimation over token rewards, whitened over the batch."""
    mask = experience.mask.to(experience.values)
    rewards = -kl_coef * (experience.logps - experience.ref_logps) * mask
    last = experience.mask.sum(1) - 1
    rewards = rewards.index_put(
        (torch.arange(len(last), device=last.device), last), experience.rewards, accumulate=True
    )
    values = experience.values * mask
    next_values = torch.zeros_like(values[:, 0])
    last_gae = torch.zeros_like(next_values)
    advantages = torch.zeros_like(values)
    for step in reversed(range(values.shape[1])):
        delta = rewards[:, step] + discount * next_values - values[:, step]
        last_gae = (delta + discount * gae_lambda * last_gae) * mask[:, step]
        advantages[:, step] = last_gae
        next_values = values[:, step]
    return CriticAdvantages(_whitened(advantages, experience.mask), returns=advantages + values)


@online(
    paper="arXiv:1707.06347",
    learning_rate=1e-5,
    learning_rate_range=(1e-6, 1e-4),
    advantage=gae,
    rollout=RolloutSettings(samples=1, updates=4),
)
def ppo(
    rollouts: CriticRollouts,
    *,
    clip: Annotated[float, Gt(0), Range(0.1, 0.3)] = 0.2,
    value_clip: Annotated[float, Gt(0)] = 0.2,
    value_weight: Annotated[float, Ge(0)] = 0.1,
) -> Loss:
    """Proximal Policy Optimization: clipped ratios, a value head, and a KL penalty in the reward.

    Equation:
        mean over tokens of max(−A·u, −A·clamp(u, 1 ± ε)) + c·½·max((v − R)², (v_old + clamp(v − v_old, ±ε_v) − R)²),
        u = π/π_old;  token rewards −κ(log π_old − log π_ref), plus r at the last token;
        A: their generalised advantage estimate, whitened over the batch;  R: the same before whitening, plus v_old

    Args:
        rollouts: answers that the policy wrote, token by token, shape [rows, time], in nats.
        clip: ε, how far the probability ratio counts, no unit; the paper tries 0.1 to 0.3.
        value_clip: ε_v, how far a value may move from the old one, in the reward's unit.
        value_weight: c, weight of the value head's loss, no unit.
        kl_coef: κ, price of a nat away from the reference, in the reward's unit; 0.02 to 0.05 is usual.
        discount: γ of a token's reward, share kept per step; 1 for answers.
        gae_lambda: λ, from one-step (0) to whole-answer (1) advantages, share kept per step.

    Returns:
        Per-example loss of shape [rows].

    Source:
        Schulman et al. 2017, equation 7, with the token rewards of Ouyang et al. 2022 (arXiv:2203.02155); value
        clipping and whitening as in Huang et al. 2024 (arXiv:2403.17031).

        Tests hold it to its equations, computed one number at a time.

        Also in LLaMA-Factory (`stage: ppo`), OpenRLHF, align-anything.

    Differs from the source:
        1. Every update goes over the whole batch of answers; there are no smaller mini-batches.
        2. The critic is a linear head on the policy's own hidden states, started at 0, not a second network.
        3. The default learning rate suits LoRA adapters (1e-6 to 3e-6 for full fine-tuning).
    """
    ratio = (rollouts.logps - rollouts.old_logps).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    surrogate = torch.maximum(-rollouts.advantages * ratio, -rollouts.advantages * clipped)
    near = rollouts.old_values + (rollouts.values - rollouts.old_values).clamp(-value_clip, value_clip)
    missed = torch.maximum((rollouts.values - rollouts.returns).square(), (near - rollouts.returns).square())
    per_token = (surrogate + value_weight * 0.5 * missed) * rollouts.mask
    outside = ((ratio - 1).abs() > clip) & rollouts.mask
    return Loss(
        per_token.sum(1) / rollouts.mean_tokens, metrics={"clip_fraction": outside.sum(1) / rollouts.mean_tokens}
    )


def _whitened(values: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the tokens of the mask; 0 beyond it."""
    found = values[mask]
    return (values - found.mean()) / (found.std(correction=0) + 1e-8) * mask
