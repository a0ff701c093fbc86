"""Batches of given answers, made by hand: few rows, and a purpose each.

Notation as in `api.batches`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from align_bench.api import ReferencedChosenLogps, ReferencedMarginPairLogps, ReferencedUnpairedLogps


def tensor(values: Sequence[float], dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, dtype=dtype)


EXTREME_MARGINS = "margins of the data of 10,000, of 0 and below 0"

# Pairs.

_FEW, _OTHERS = [1, 4, 9, 30], [3, 2, 12, 25]
_ONE = (1.0,) * 4  # the data's margin, where it should say nothing


@dataclass(frozen=True, slots=True)
class AllPairs(ReferencedMarginPairLogps):
    """Pairs with all that `api`'s records of pairs hold of a row."""

    prefix_chosen: Tensor
    prefix_rejected: Tensor
    ref_prefix_chosen: Tensor
    ref_prefix_rejected: Tensor
    confidence_chosen: Tensor
    confidence_rejected: Tensor
    mismatched: Tensor
    ref_mismatched: Tensor


def _pairs(
    dtype: torch.dtype,
    chosen: Sequence[float],
    rejected: Sequence[float],
    tokens: tuple[Sequence[int], Sequence[int]],
    ratios: tuple[Sequence[float], Sequence[float]],
    margin: Sequence[float] = _ONE,
) -> AllPairs:
    """Pairs from sums, counts and ρ of either side, and the data's margin; all tokens of an answer are alike."""
    sums = [tensor(chosen, dtype), tensor(rejected, dtype)]
    counts = [torch.tensor(each) for each in tokens]
    ref_sums = [own - tensor(ratio, dtype) for own, ratio in zip(sums, ratios, strict=True)]
    shares = [torch.minimum(*counts) / each for each in counts]
    fields = [
        *sums,
        *counts,
        *ref_sums,
        tensor(margin, dtype),
        *(own * share for own, share in zip(sums, shares, strict=True)),
        *(own * share for own, share in zip(ref_sums, shares, strict=True)),
        *(own / each * 0.3 for own, each in zip(sums, counts, strict=True)),
        torch.cat(sums),
        torch.cat(sums) - 0.3 * torch.cat([tensor(ratio, dtype) for ratio in ratios]),
    ]
    return AllPairs(*fields)


def near_pairs(shift: float) -> Callable[[torch.dtype], AllPairs]:
    """Equally long answers, equally likely but for `shift` nats, so that no row favours a side by length."""

    def make(dtype: torch.dtype) -> AllPairs:
        shifts = [0.0, shift, -shift, shift / 2]
        base = [-1.2 * count for count in _FEW]
        moved = [value + move for value, move in zip(base, shifts, strict=True)]
        return _pairs(dtype, moved, base, (_FEW, _FEW), (shifts, [0.0] * 4))

    return make


def lopsided_pairs(
    chosen_ratios: Sequence[float], rejected_ratios: Sequence[float], margin: Sequence[float] = _ONE
) -> Callable[[torch.dtype], AllPairs]:
    chosen, rejected = [-0.0213, -5.237, -5.471, -63.13], [-7.519, -0.811, -13.27, -22.63]
    return lambda dtype: _pairs(dtype, chosen, rejected, (_FEW, _OTHERS), (chosen_ratios, rejected_ratios), margin)


def extreme_pairs(dtype: torch.dtype) -> Mapping[str, AllPairs]:
    certain = [0.0, -1e-30, -1e-12, -1e-7]
    unsure, zero, one, many = [-1.0] * 4, [0.0] * 4, [1] * 4, [7] * 4
    far = [-1e4, -2.0, -1e4, -2.0]
    return {
        "a margin of 10,000 nats": _pairs(
            dtype, far, far[::-1], (one, one), ([-1e4, 1e4, -1e4, 1e4], [1e4, -1e4, 1e4, -1e4])
        ),
        "a certain chosen answer (s̄ → 0)": _pairs(dtype, certain, unsure, (one, many), (certain, zero)),
        "a certain rejected answer (s̄ → 0)": _pairs(dtype, unsure, certain, (many, one), (zero, certain)),
        "two certain answers (s̄ → 0)": _pairs(dtype, certain, certain[::-1], (one, one), (certain, certain)),
        EXTREME_MARGINS: _pairs(dtype, unsure, unsure, (one, one), (zero, zero), [1e4, 1e-4, 0.0, -2.0]),
    }


def side_of(record: Any, name: str) -> Tensor:
    return torch.full_like(record.chosen, name.endswith("rejected"), dtype=torch.bool)


# Chosen answers.


def _chosen(
    dtype: torch.dtype, sums: Sequence[float], tokens: Sequence[int], ratios: Sequence[float]
) -> ReferencedChosenLogps:
    logps = tensor(sums, dtype)
    return ReferencedChosenLogps(logps, torch.tensor(tokens), logps - tensor(ratios, dtype))


def near_chosen(shift: float) -> Callable[[torch.dtype], ReferencedChosenLogps]:
    return lambda dtype: _chosen(dtype, [-1.2 * count for count in _FEW], _FEW, [0.0, shift, -shift, shift / 2])


def lopsided_chosen(ratios: Sequence[float]) -> Callable[[torch.dtype], ReferencedChosenLogps]:
    return lambda dtype: _chosen(dtype, [-0.0213, -5.237, -5.471, -63.13], _FEW, ratios)


def extreme_chosen(dtype: torch.dtype) -> Mapping[str, ReferencedChosenLogps]:
    certain = [0.0, -1e-30, -1e-12, -1e-7]
    return {
        "a sum of −10,000 nats": _chosen(dtype, [-1e4, -1e4, -2.0, -2.0], [1, 7, 1, 7], [-1e4, 1e4, -1e4, 1e4]),
        "a certain answer (s̄ → 0)": _chosen(dtype, certain, [1] * 4, certain),
    }


def none_of(record: Any, name: str) -> Tensor:
    return torch.zeros_like(record.logps, dtype=torch.bool)


# Single answers.


def _unpaired(
    dtype: torch.dtype, sums: Sequence[float], tokens: Sequence[int], ratios: Sequence[float], drift: Sequence[float]
) -> ReferencedUnpairedLogps:
    """Answers from sums, counts and ρ, every other one desirable; `drift` is ρ of the batch's mismatched answers."""
    logps = tensor(sums, dtype)
    mismatched = torch.full((len(drift),), -30.0, dtype=dtype)
    return ReferencedUnpairedLogps(
        logps=logps,
        tokens=torch.tensor(tokens),
        desirable=torch.arange(len(sums)) % 2 == 0,
        ref_logps=logps - tensor(ratios, dtype),
        mismatched=mismatched,
        ref_mismatched=mismatched - tensor(drift, dtype),
    )


def near_unpaired(shift: float) -> Callable[[torch.dtype], ReferencedUnpairedLogps]:
    shifts = [0.0, 0.0, shift, shift, -shift, -shift]
    sums = [-1.2, -2.4, -9.0, -9.0, -30.0, -45.0]
    return lambda dtype: _unpaired(dtype, sums, [1, 2, 7, 7, 20, 30], shifts, [shift, -shift, shift / 2, *[0.0] * 5])


def lopsided_unpaired(
    ratios: Sequence[float], drift: Sequence[float]
) -> Callable[[torch.dtype], ReferencedUnpairedLogps]:
    sums = [-4.0, -7.5, -20.0, -3.0, -50.0, -9.0]
    return lambda dtype: _unpaired(dtype, sums, [2, 3, 11, 2, 40, 7], ratios, drift)


def extreme_unpaired(dtype: torch.dtype) -> Mapping[str, ReferencedUnpairedLogps]:
    sums, tokens = [-2.0, -2.0, -1e4, -1e4], [1, 1, 7, 7]
    ratios = [1e4, 1e4, -1e4, -1e4]
    certain = [0.0, 0.0, -1e-12, -1e-7]
    return {
        "a ratio of 10,000 nats": _unpaired(dtype, sums, tokens, ratios, [0.5, 1.5, 0.0, 0.0]),
        "a drift of 10,000 nats": _unpaired(dtype, sums, tokens, ratios, [1e4] * 4),
        "a drift of −10,000 nats": _unpaired(dtype, sums, tokens, ratios, [-1e4] * 4),
        "a certain answer (s̄ → 0)": _unpaired(dtype, certain, [1] * 4, certain, [0.0] * 4),
    }


def undesirable(record: Any, name: str) -> Tensor:
    found: Tensor = ~record.desirable
    return found


# Scores.


@dataclass(frozen=True, slots=True)
class AllScores:
    """Pairs of scores with margins and with what every auxiliary brings: all fields of `api`'s records of scores."""

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    margin: Tensor
    bias_chosen: Tensor
    bias_rejected: Tensor
    adversarial_chosen: Tensor
    adversarial_rejected: Tensor
    length_chosen: Tensor
    length_rejected: Tensor
    head_cosine: Tensor
    batch_scores: Tensor
    batch_length_scores: Tensor
    batch_tokens: Tensor


def scores(
    chosen: Sequence[float],
    rejected: Sequence[float],
    beside: tuple[Sequence[float], Sequence[float]] | None = None,
    margin: Sequence[float] = _ONE,
) -> Callable[[torch.dtype], AllScores]:
    """Pairs of scores; every further scorer gives `beside`, by default the same.

    The batch that a length head is measured over has widely spread scores, so that its correlations with length weigh
    little beside the preference: near the reference it is the preference that the sign of a slope tells of.
    """
    won, lost = beside or (chosen, rejected)

    def make(dtype: torch.dtype) -> AllScores:
        return AllScores(
            tensor(chosen, dtype),
            tensor(rejected, dtype),
            chosen_tokens=torch.tensor(_FEW[: len(chosen)]),
            rejected_tokens=torch.tensor(_OTHERS[: len(chosen)]),
            margin=tensor(margin[: len(chosen)], dtype),
            bias_chosen=tensor(won, dtype),
            bias_rejected=tensor(lost, dtype),
            adversarial_chosen=tensor(won, dtype),
            adversarial_rejected=tensor(lost, dtype),
            length_chosen=tensor(won, dtype),
            length_rejected=tensor(lost, dtype),
            head_cosine=tensor([0.31], dtype)[0],
            batch_scores=tensor([-61.0, 43.0, 57.0, -35.0], dtype),
            batch_length_scores=tensor([47.0, -52.0, -39.0, 66.0], dtype),
            batch_tokens=torch.tensor([3, 30, 9, 14]),
        )

    return make


def extreme_scores(dtype: torch.dtype) -> Mapping[str, AllScores]:
    far = [5e3, -5e3]
    margin = scores(far, far[::-1])(dtype)
    still = torch.zeros(4, dtype=dtype)
    return {
        "a margin of 10,000": margin,
        "a margin of 10,000 against that of the scorer beside it": scores(far, far[::-1], (far[::-1], far))(dtype),
        "a common offset of 10,000": scores([1e4, -1e4], [1e4, -1e4])(dtype),
        EXTREME_MARGINS: scores([0.0] * 3, [0.0] * 3, margin=[1e4, 0.0, -2.0])(dtype),
        "a batch of equal scores and lengths": replace(
            scores([0.0, 0.0], [0.0, 0.0])(dtype),
            batch_scores=still,
            batch_length_scores=still,
            batch_tokens=torch.full((4,), 7),
        ),
    }
