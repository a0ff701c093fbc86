"""A method's own rewards of validation pairs, from their log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from align_bench.api import (
    ChosenLogps,
    OfflineAlgorithm,
    PairLogps,
    ReferencedChosenLogps,
    ReferencedPairLogps,
    ReferencedUnpairedLogps,
    UnpairedLogps,
)
from align_bench.api.batches import with_margin
from align_bench.evaluate.preference import SIDES

if TYPE_CHECKING:
    from align_bench.api import Algorithm, Batch
    from align_bench.evaluate.preference import Columns
    from align_bench.records import Parameters, TokenRow


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
        pairs = PairLogps(policy["chosen"], policy["rejected"], tokens["chosen"], tokens["rejected"])
        if algorithm.reference:
            pairs = ReferencedPairLogps(
                pairs.chosen,
                pairs.rejected,
                pairs.chosen_tokens,
                pairs.rejected_tokens,
                reference["chosen"],
                reference["rejected"],
            )
        # Margins move only the loss, not the rewards, so that validation pairs need none: any value will do.
        margin = torch.ones_like(pairs.chosen)
        loss = algorithm(with_margin(pairs, margin) if algorithm.margin else pairs, **parameters)
        return {"chosen": loss.rewards_in("chosen_rewards"), "rejected": loss.rewards_in("rejected_rewards")}
    # The reward of a single answer is read answer by answer.
    rewards = {}
    for side in SIDES:
        batch = _single(algorithm, side, policy[side], tokens[side], reference[side])
        rewards[side] = algorithm(batch, **parameters).rewards_in("rewards")
    return rewards


def _single(algorithm: OfflineAlgorithm, side: str, logps: Tensor, tokens: Tensor, reference: Tensor) -> Batch:
    if algorithm.data == "chosen":
        return ReferencedChosenLogps(logps, tokens, reference) if algorithm.reference else ChosenLogps(logps, tokens)
    desirable = torch.full((len(logps),), side == "chosen")
    if not algorithm.reference:
        return UnpairedLogps(logps, tokens, desirable)
    # The KL estimate moves only the loss, not the reward, so any value will do for it.
    nothing = torch.zeros(1)
    return ReferencedUnpairedLogps(logps, tokens, desirable, reference, nothing, nothing)
