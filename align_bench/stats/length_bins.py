"""How much of a gain in reward is more than a shift to other lengths."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from align_bench.metrics.finite import Column
from align_bench.metrics.resampling import Matrix, OfSums, estimates
from align_bench.records import Estimate

BINS = 10


@dataclass(frozen=True, slots=True)
class Answers:
    """Judged answers of one model, each an entry: its prompt, length and reward."""

    prompts: Sequence[Hashable]
    lengths: Column
    rewards: Column


@dataclass(frozen=True, slots=True)
class Gain:
    """A difference in mean reward and its two parts, which add up to it, in the reward's unit.

    Attributes:
        total: mean reward of the policy less that of the base.
        within: what is left between answers of like length.
        between: what comes of writing answers of other lengths.
    """

    total: Estimate
    within: Estimate
    between: Estimate


def binned_gain(policy: Answers, base: Answers) -> Gain:
    """Split a policy's gain by length, as Kitagawa (1955, JASA 50) splits a difference between two rates.

    Lengths are cut at the deciles of both models' answers together. With p_k, q_k the shares of the policy's and the
    base's answers in bin k and a_k, b_k their mean rewards there, `within` is Σ ½(p_k + q_k)(a_k − b_k) and `between`
    is Σ (p_k − q_k)·½(a_k + b_k). A bin that only one of them uses has no difference within it, and counts as between.
    A prompt's answers have a weight of 1 together. The 95% intervals are BCa, of resampled prompts (the bins
    stay).

    Args:
        policy, base: their answers; only prompts that both have count.

    Returns:
        None each without two prompts.
    """
    both = set(base.prompts)
    prompts = list(dict.fromkeys(prompt for prompt in policy.prompts if prompt in both))
    n = len(prompts)
    if n < 2:
        return Gain(Estimate(None, n=n), Estimate(None, n=n), Estimate(None, n=n))
    place = {prompt: row for row, prompt in enumerate(prompts)}
    pooled = np.concatenate([side.lengths[[prompt in place for prompt in side.prompts]] for side in (policy, base)])
    edges = np.unique(np.quantile(pooled, np.linspace(0, 1, BINS + 1)[1:-1]))
    by_prompt = [sums for side in (policy, base) for sums in _by_prompt(side, place, edges)]

    def parts(sums: Matrix) -> Matrix:
        drawn = sums[..., :1]
        shares, rewards, base_shares, base_rewards = np.split(sums[..., 1:], 4, axis=-1)
        (p, a), (q, b) = _in_bins(shares, rewards, drawn), _in_bins(base_shares, base_rewards, drawn)
        a, b = np.where(p > 0, a, b), np.where(q > 0, b, a)
        within, between = (p + q) / 2 * (a - b), (p - q) * (a + b) / 2
        return np.stack([(within + between).sum(-1), within.sum(-1), between.sum(-1)], axis=-1)

    return Gain(*estimates(OfSums(np.hstack([np.ones((n, 1)), *by_prompt]), parts), n))


def _by_prompt(side: Answers, place: dict[Hashable, int], edges: Column) -> tuple[Matrix, Matrix]:
    """Shares of each prompt's answers in each bin, and their rewards times these; shape [prompts, bins]."""
    shares, sums = np.zeros((len(place), len(edges) + 1)), np.zeros((len(place), len(edges) + 1))
    bins = np.searchsorted(edges, side.lengths, side="left")
    for prompt, bin_, reward in zip(side.prompts, bins, side.rewards, strict=True):
        if prompt in place:
            shares[place[prompt], bin_] += 1
            sums[place[prompt], bin_] += reward
    answers = shares.sum(1, keepdims=True)
    return shares / answers, sums / answers


def _in_bins(shares: Matrix, rewards: Matrix, drawn: Matrix) -> tuple[Matrix, Matrix]:
    """Share of the answers to the prompts drawn in each bin, and their mean reward there (0 in an empty bin)."""
    return shares / drawn, np.divide(rewards, shares, out=np.zeros_like(rewards), where=shares > 0)
