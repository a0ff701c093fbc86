"""A method's own rewards of validation pairs, from their log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align_bench.api import ChosenLogps, PairLogps, Recipe, UnpairedLogps
from align_bench.evaluate.preference import SIDES

if TYPE_CHECKING:
    from align_bench.api import Algorithm, Record
    from align_bench.evaluate.preference import Columns
    from align_bench.records import TokenRow


def rewards_of(
    algorithm: Algorithm, parameters: Mapping[str, Any], rows: Sequence[TokenRow], policy: Columns, reference: Columns
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
    if algorithm.online or isinstance(algorithm, Recipe):  # neither implies a reward
        return {side: policy[side] / tokens[side] for side in SIDES}
    if algorithm.data == "pairs":
        loss = algorithm(
            PairLogps(
                policy["chosen"],
                policy["rejected"],
                tokens["chosen"],
                tokens["rejected"],
                reference["chosen"] if algorithm.reference else None,
                reference["rejected"] if algorithm.reference else None,
            ),
            **parameters,
        )
        return {"chosen": _given(loss.chosen_rewards), "rejected": _given(loss.rejected_rewards)}
    # The reward of a single answer is read answer by answer.
    rewards = {}
    for side in SIDES:
        loss = algorithm(_single(algorithm, side, policy[side], tokens[side], reference[side]), **parameters)
        rewards[side] = _given(loss.rewards)
    return rewards


def _single(algorithm: Algorithm, side: str, logps: Tensor, tokens: Tensor, reference: Tensor) -> Record:
    known = reference if algorithm.reference else None
    if algorithm.data == "chosen":
        return ChosenLogps(logps, tokens, known)
    # The KL estimate moves only the loss, not the reward, so any value will do for it.
    nothing = torch.zeros(1)
    return UnpairedLogps(
        logps=logps,
        tokens=tokens,
        desirable=torch.full((len(logps),), side == "chosen"),
        ref_logps=known,
        mismatched=nothing,
        ref_mismatched=nothing if algorithm.reference else None,
    )


def _given(rewards: Tensor | None) -> Tensor:
    assert rewards is not None, "Algorithm.__call__ has checked it"
    return rewards
