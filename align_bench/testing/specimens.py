"""Batches that the conformance kit puts before a loss: one entry of `KINDS` for each kind of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from align_bench.api import Batch, CriticRollouts, OfflineAlgorithm, OnlineAlgorithm, Rollouts
from align_bench.api.readings import record_of
from align_bench.records import Parameters
from align_bench.testing.bench import (
    Bench,
    chosen_by_definition,
    pairs_by_definition,
    rollouts_by_definition,
    scores_by_definition,
    unpaired_by_definition,
)
from align_bench.testing.given_batches import (
    AllScores,
    extreme_chosen,
    extreme_pairs,
    extreme_scores,
    extreme_unpaired,
    lopsided_chosen,
    lopsided_pairs,
    lopsided_unpaired,
    near_chosen,
    near_pairs,
    near_unpaired,
    none_of,
    scores,
    side_of,
    undesirable,
)
from align_bench.testing.narrowed import narrowed
from align_bench.testing.written_batches import better_up, extreme_rollouts, no_side, rollouts

Specimen: TypeAlias = Batch | AllScores | Rollouts
Learner: TypeAlias = OfflineAlgorithm | OnlineAlgorithm
_SIDES = ("chosen", "rejected")
_MARGINS = (0.43, 1.91, 3.07, 0.89)


@dataclass(frozen=True, slots=True)
class Kind:
    """What the kit knows of one kind of data.

    Every maker of a batch takes a dtype and yields a batch with all fields; `for_method` takes away what a method does
    not read.

    Attributes:
        trained: the record's fields that carry gradient, in the order of the rewards that answer to them.
        at_reference: rows where the policy equals the reference (scores: where both scores are 0), with margins of 1.
        near_reference: rows a little to either side of it, where no method has reached its target yet.
        moderate: rows well away from it and from each other, where losses are curved; no round numbers, at which a
            hinge might stand.
        extreme: what is extreme about it → rows.
        slopes: of a trained field, the sign that ∂loss/∂field is to have where the record stands at or near the
            reference: −1, 0 or 1; `rejected` answers may be declared idle.
        rejected: which rows of a trained field are rejected (undesirable) answers.
        by_definition: the record of all token rows, computed plainly from the model and from the reference model.
        counts: the record's fields that count tokens.
        per_batch: the record's fields that belong to the whole effective batch, not to a row.
        beside: further fields that carry gradient: of a scorer or a head that is dropped after training, or of an
            answer's first tokens.
    """

    trained: tuple[str, ...]
    at_reference: Callable[[torch.dtype], Specimen]
    near_reference: Callable[[torch.dtype], Specimen]
    moderate: Callable[[torch.dtype], Specimen]
    extreme: Callable[[torch.dtype], Mapping[str, Specimen]]
    rejected: Callable[[Any, str], Tensor]
    by_definition: Callable[[Bench], Specimen]
    counts: tuple[str, ...] = ()
    per_batch: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    slopes: Callable[[Any, str], Tensor] | None = None


def read_by(algorithm: Learner, parameters: Parameters) -> Callable[..., Any]:
    """The record that a method reads of a row at these hyper-parameters, without the whole batch."""
    if isinstance(algorithm, OnlineAlgorithm):
        return CriticRollouts if algorithm.critic else Rollouts
    beside = algorithm.beside(parameters)
    return record_of(replace(algorithm.reading.of_rows, auxiliary=None if beside is None else type(beside)))


def for_method(record: Specimen, algorithm: Learner, parameters: Parameters) -> Any:
    """The record as the method will see it: with what it reads, and no more; its rows are the whole batch."""
    rows = narrowed(record, read_by(algorithm, parameters))
    return rows if isinstance(algorithm, OnlineAlgorithm) else algorithm.of_one_batch(rows, parameters)


KINDS: Mapping[str, Kind] = {
    "pairs": Kind(
        trained=("chosen", "rejected"),
        at_reference=lopsided_pairs([0.0] * 4, [0.0] * 4),
        near_reference=near_pairs(0.05),
        moderate=lopsided_pairs([0.513, -2.071, 1.537, 3.019], [-1.043, 0.967, -0.461, 4.127], _MARGINS),
        extreme=extreme_pairs,
        rejected=side_of,
        by_definition=pairs_by_definition,
        counts=("chosen_tokens", "rejected_tokens"),
        per_batch=("mismatched", "ref_mismatched"),
        beside=("prefix_chosen", "prefix_rejected"),
    ),
    "chosen": Kind(
        trained=("logps",),
        at_reference=lopsided_chosen([0.0] * 4),
        near_reference=near_chosen(0.05),
        moderate=lopsided_chosen([0.513, -2.071, 1.537, 3.019]),
        extreme=extreme_chosen,
        rejected=none_of,
        by_definition=chosen_by_definition,
        counts=("tokens",),
    ),
    "unpaired": Kind(
        trained=("logps",),
        at_reference=lopsided_unpaired([0.0] * 6, [0.0] * 8),
        near_reference=near_unpaired(0.05),
        moderate=lopsided_unpaired(
            [3.07, -4.11, 0.53, -1.09, -6.13, 8.17], [2.03, 0.47, -1.11, 1.53, 2.57, 0.59, 1.07, 3.01]
        ),
        extreme=extreme_unpaired,
        rejected=undesirable,
        by_definition=unpaired_by_definition,
        counts=("tokens",),
        per_batch=("mismatched", "ref_mismatched"),
    ),
    "scores": Kind(
        trained=("chosen", "rejected"),
        at_reference=scores([0.0, 0.0], [0.0, 0.0]),
        near_reference=scores([0.0, 0.05, -0.05], [0.0, -0.05, 0.05]),
        moderate=scores([1.53, -2.07, 0.27], [-0.51, 1.03, 0.49], ([0.87, 0.21, -1.13], [-0.33, 1.59, 0.43]), _MARGINS),
        extreme=extreme_scores,
        rejected=side_of,
        by_definition=scores_by_definition,
        beside=tuple(f"{scorer}_{side}" for scorer in ("bias", "adversarial", "length") for side in _SIDES),
    ),
    "rollouts": Kind(
        trained=("logps", "values"),
        at_reference=lambda dtype: rollouts(dtype, [0.0] * 4, [0.0] * 4, [0.5, -0.5, -0.5, 0.5]),
        # The policy went the wrong way, beyond any clip: a loss without the maximum of both would let it.
        near_reference=lambda dtype: rollouts(dtype, [-0.7, 0.7, -0.7, 0.7], [0.0] * 4, [0.5, -0.5, -0.5, 0.5]),
        moderate=lambda dtype: rollouts(
            dtype, [0.031, -0.017, 0.043, 0.023], [0.31, -0.23, 0.17, -0.41], [0.31, -0.57, 0.23, 0.41], 0.037
        ),
        extreme=extreme_rollouts,
        rejected=no_side,
        by_definition=rollouts_by_definition,
        slopes=better_up,
    ),
}
