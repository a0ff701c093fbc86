"""A method's own rewards of validation pairs, from their log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from align_bench.api import OfflineAlgorithm
from align_bench.api.readings import as_record
from align_bench.evaluate.preference import SIDES

if TYPE_CHECKING:
    from align_bench.api import Algorithm, Batch
    from align_bench.evaluate.preference import Columns
    from align_bench.records import Parameters, TokenRow

_NOT_IN_REWARDS = (
    *("margin", "mismatched", "ref_mismatched", "confidence_chosen", "confidence_rejected"),
    *("prefix_chosen", "prefix_rejected", "ref_prefix_chosen", "ref_prefix_rejected"),
)


def rewards_of(
    algorithm: Algorithm, parameters: Parameters, rows: Sequence[TokenRow], policy: Columns, reference: Columns
) -> Columns:
    """The method's own rewards of validation pairs, by its own loss function; s̄ of an online method and of a recipe.

    Args:
        algorithm: a policy method.
        parameters: its hyper-parameters.
        rows: the validation rows, both answers present.
        policy, reference: `chosen` and `rejected` log-probabilities under the trained policy and under the base.

    Returns:
        `chosen` and `rejected` rewards, float32, shape [rows], in the method's own unit.
    """
    tokens = {side: torch.tensor([len(getattr(row, side)) for row in rows]) for side in SIDES}
    if not isinstance(algorithm, OfflineAlgorithm):  # it implies no reward
        return {side: policy[side] / tokens[side] for side in SIDES}
    if algorithm.data == "pairs":
        pairs = _filled(
            algorithm,
            parameters,
            chosen=policy["chosen"],
            rejected=policy["rejected"],
            chosen_tokens=tokens["chosen"],
            rejected_tokens=tokens["rejected"],
            ref_chosen=reference["chosen"],
            ref_rejected=reference["rejected"],
        )
        loss = algorithm(pairs, **parameters)
        return {"chosen": loss.rewards_in("chosen_rewards"), "rejected": loss.rewards_in("rejected_rewards")}
    # The reward of a single answer is read answer by answer.
    rewards = {}
    for side in SIDES:
        batch = _filled(
            algorithm,
            parameters,
            logps=policy[side],
            tokens=tokens[side],
            desirable=torch.full((len(rows),), side == "chosen"),
            ref_logps=reference[side],
        )
        rewards[side] = algorithm(batch, **parameters).rewards_in("rewards")
    return rewards


def _filled(algorithm: OfflineAlgorithm, parameters: Parameters, **values: Tensor) -> Batch:
    """The record that the method reads, of all rows.

    What moves its loss only, and not its rewards, is not measured on validation pairs, and any value will do for it.
    """
    like = next(iter(values.values()))
    rows = as_record(algorithm.reading.of_rows, {name: torch.ones_like(like) for name in _NOT_IN_REWARDS} | values)
    return algorithm.of_one_batch(rows, parameters)
