"""Validation pairs under a policy: log-probabilities, and the method's own rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_bench.stages.columns import Measured, as_tensors, save_columns
from align_bench.stages.models import ModelKey
from align_bench.stages.stage import Desk, Made, Sizes, Stage, Work
from align_bench.stages.tokens import distinct_tokens_in

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import Json, TokenTable
    from align_bench.stages.train import Trained


@dataclass(frozen=True, kw_only=True, eq=False)
class ValidatePolicy(Measured):
    """`chosen` and `rejected`, `s` under the policy in nats; `chosen_reward` and `rejected_reward`, the method's own.

    Rewards are NaN where a row lacks an answer.

    Attributes:
        adapter: the trained policy.
        table: the rows.
        reference: the base's log-probabilities of them.
        max_tokens: padded tokens that one pass may hold.
        label: what is shown while it is made.
    """

    adapter: Trained
    table: Stage[TokenTable]
    reference: Measured
    max_tokens: int
    label: str = "validation pairs"
    kind = "validation"
    column = "validation"

    def needs(self) -> tuple[Stage[object], ...]:
        return self.table, self.reference, self.adapter

    def identity(self) -> dict[str, Json]:
        return {}

    def models(self) -> tuple[ModelKey, ...]:
        return (self.adapter.model,)

    def estimate(self, sizes: Sizes) -> Work:
        return Work(sizes(self.table).tokens)

    def run(self, desk: Desk, folder: Path) -> Made:
        import torch

        from align_bench.evaluate.preference import SIDES, table_logps
        from align_bench.evaluate.rewards import rewards_of

        table = desk.load(self.table)
        model = desk.model(self.adapter.model)
        logps = table_logps(model, table.rows, max_tokens=self.max_tokens, update=desk.update)
        places = [place for place, row in enumerate(table.rows) if row.chosen is not None and row.rejected is not None]
        rewards = {side: torch.full((len(table.rows),), torch.nan) for side in SIDES}
        if places:
            reference = as_tensors(desk.load(self.reference))
            found = rewards_of(
                self.adapter.plugin.algorithm,
                self.adapter.parameters,
                [table.rows[place] for place in places],
                {side: logps[side][places] for side in SIDES},
                {side: reference[side][places] for side in SIDES},
            )
            for side in SIDES:
                rewards[side][places] = found[side].float()
        save_columns(logps | {f"{side}_reward": rewards[side] for side in SIDES}, folder)
        return Made(distinct_tokens_in(table))
