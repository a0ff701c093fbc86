"""What a loss returns, and what is held to its contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from align_bench.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor

RewardField: TypeAlias = Literal["chosen_rewards", "rejected_rewards", "rewards"]


@dataclass(frozen=True, slots=True)
class Loss:
    """What a plugin returns. The mean over the effective batch is the caller's.

    Attributes:
        values: per-example loss, shape [rows].
        chosen_rewards, rejected_rewards: the method's own (implicit) rewards of a pair, shape [rows].
        rewards: the same for rows of single answers, shape [rows].
        metrics: further per-example tensors of shape [rows] to log as means.
        correlations: pairs of tensors of equal shape; Pearson's r of each over the effective batch is logged.
    """

    values: Tensor
    chosen_rewards: Tensor | None = None
    rejected_rewards: Tensor | None = None
    rewards: Tensor | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    correlations: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def rewards_in(self, name: RewardField) -> Tensor:
        """The rewards in that field, which a checked loss has."""
        found: Tensor | None = getattr(self, name)
        assert found is not None, "checked_loss has seen to it"
        return found


def checked_loss(loss: object, method: str, rows: int, data: str, reward_fields: Sequence[RewardField]) -> Loss:
    """What a plugin returned, as a Loss that keeps the contract.

    Args:
        loss: what it returned.
        method: its name.
        rows: rows of its batch.
        data: its kind of data.
        reward_fields: the rewards that this kind returns.

    Raises:
        PluginError: when it is not what the contract asks for.
    """
    if not isinstance(loss, Loss):
        raise PluginError(f"{method} returned {type(loss).__name__}, expected align_bench.api.Loss")
    for name in ("values", *reward_fields):
        tensor: Tensor | None = getattr(loss, name)
        if tensor is None:
            raise PluginError(f"{method} returned a Loss without {name}, which data={data!r} needs")
        if tuple(tensor.shape) != (rows,):
            raise PluginError(
                f"{method} returned {name} of shape {tuple(tensor.shape)}, expected one per row: ({rows},)",
                fix="return per-example values; the mean is the caller's",
            )
    for name, tensor in loss.metrics.items():
        if (shape := tuple(tensor.shape)) != (rows,):
            raise PluginError(
                f"{method} returned the metric {name!r} of shape {shape}, expected one per row: ({rows},)",
                fix="expand it to the rows, such as value.expand(rows)",
            )
    return loss
