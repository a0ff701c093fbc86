"""Answers that a policy wrote, made by hand, as online methods read them. Notation as in `api.rollouts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from align_bench.api import CriticExperience, CriticRollouts
from align_bench.testing.given_batches import tensor

_LENGTHS = (5, 3, 1, 4)
_MEAN_TOKENS = sum(_LENGTHS) / len(_LENGTHS)


def rollouts(
    dtype: torch.dtype, moved: Sequence[float], drift: Sequence[float], missed: Sequence[float], valued: float = 0.0
) -> CriticRollouts:
    """Answers of unequal length, the first and third better than expected, the others worse.

    Args:
        dtype: of all numbers.
        moved: log π − log π_old of every token of an answer, nats.
        drift: log π − log π_ref, likewise.
        missed: value − return, likewise.
        valued: value − old value, of all tokens.
    """
    mask = torch.arange(max(_LENGTHS)) < torch.tensor(_LENGTHS)[:, None]
    size = torch.arange(1.0, 1 + mask.numel(), dtype=dtype).reshape(mask.shape)
    logps = -(0.2 + 0.13 * size) * mask
    worth = tensor([1.0, -1.0, 1.0, -1.0], dtype)[:, None] * (0.7 + 0.01 * size) * mask

    def less(values: Sequence[float], scale: Tensor) -> Tensor:
        return tensor(values, dtype)[:, None] * scale * mask

    uneven = 1 + 0.03 * size
    values = 0.4 * worth
    return CriticRollouts(
        logps=logps,
        old_logps=logps - less(moved, uneven),
        ref_logps=logps - less(drift, uneven),
        mask=mask,
        advantages=worth,
        returns=values - less(missed, uneven),
        values=values,
        old_values=values - valued * uneven * mask,
        mean_tokens=_MEAN_TOKENS,
    )


def drifted(dtype: torch.dtype) -> CriticRollouts:
    """Answers that are as good as expected, to either side of the reference."""
    record = rollouts(dtype, [0.0] * 4, [0.31, -0.23, 0.17, -0.41], [0.0] * 4)
    return replace(record, advantages=0 * record.advantages)


def extreme_rollouts(dtype: torch.dtype) -> Mapping[str, CriticRollouts]:
    nothing, far = [0.0] * 4, [5.0, 5.0, -5.0, -5.0]
    ordinary = rollouts(dtype, nothing, nothing, nothing)
    return {
        "ratios of e⁵ to e⁸ a token": rollouts(dtype, far, nothing, nothing),
        "a drift of 20 nats per token": rollouts(dtype, nothing, [20.0, -20.0, 20.0, -20.0], nothing),
        "values 10,000 off": rollouts(dtype, nothing, nothing, [1e4, -1e4, 1e4, -1e4], 1e4),
        "advantages of 10,000": replace(ordinary, advantages=1e4 * ordinary.advantages),
        "certain tokens": replace(
            ordinary, logps=0 * ordinary.logps, old_logps=0 * ordinary.logps, ref_logps=0 * ordinary.logps
        ),
    }


def better_up(record: Any, name: str) -> Tensor:
    """Tokens that did better than expected become likelier, the others less likely; values move to their returns."""
    wanted = record.values - record.returns if name == "values" else -record.advantages
    found: Tensor = wanted.sign()
    return found


def no_side(record: Any, name: str) -> Tensor:
    return torch.zeros_like(record.mask)


def experience(dtype: torch.dtype, order: Sequence[int] = range(6), padding: int = 0) -> CriticExperience:
    """Three answers to each of two prompts, all of different rewards and lengths, written by the reference itself.

    Args:
        dtype: of all numbers.
        order: the rows, in this order.
        padding: columns beyond the longest answer.
    """
    lengths = torch.tensor([4, 2, 6, 3, 5, 1])[list(order)]
    mask = torch.arange(6 + padding) < lengths[:, None]
    step = torch.arange(1.0, 1 + mask.shape[1], dtype=dtype)
    logps = -0.1 * step * lengths[:, None] * mask
    return CriticExperience(
        rewards=tensor([1.5, -0.5, 0.25, 2.0, 3.5, 2.75], dtype)[list(order)],
        group=torch.tensor([0, 0, 0, 1, 1, 1])[list(order)],
        mask=mask,
        logps=logps,
        ref_logps=logps,
        values=torch.zeros_like(logps),
    )
