"""Validation pairs under a reward model trained here, as they are and under attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_bench.stages.columns import Measured, attacked, save_columns
from align_bench.stages.models import ModelKey
from align_bench.stages.stage import Desk, Made, Sizes, Stage, Work
from align_bench.stages.tokens import distinct_tokens_in

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import Json, TokenTable
    from align_bench.stages.models import RewardModel


@dataclass(frozen=True, kw_only=True, eq=False)
class ValidateReward(Measured):
    """`chosen` and `rejected`, `r` of both answers; their columns `attacked` by steps of size ε. No unit.

    Attributes:
        reward: the reward model.
        table: the rows.
        epsilons: sizes of the attacks, × the norm of the input embeddings.
        max_tokens: padded tokens that one pass may hold.
        label: what is shown while it is made.
    """

    reward: RewardModel
    table: Stage[TokenTable]
    epsilons: tuple[float, ...]
    max_tokens: int
    label: str = "validation pairs"
    kind = "validation"
    column = "validation"

    def needs(self) -> tuple[Stage[object], ...]:
        return self.table, *self.reward.needs()

    def identity(self) -> dict[str, Json]:
        return {"epsilons": list(self.epsilons)}

    def models(self) -> tuple[ModelKey, ...]:
        return (self.reward,)

    def estimate(self, sizes: Sizes) -> Work:
        return Work(sizes(self.table).tokens * (1 + 2 * len(self.epsilons)))

    def run(self, desk: Desk, folder: Path) -> Made:
        from align_bench.evaluate.preference import table_attacked_scores, table_scores

        table = desk.load(self.table)
        model = desk.model(self.reward)
        columns = table_scores(model, table.rows, max_tokens=self.max_tokens, update=desk.update)
        for epsilon in self.epsilons:
            found = table_attacked_scores(model, table.rows, epsilon, max_tokens=self.max_tokens, update=desk.update)
            columns |= {attacked(side, epsilon): scores for side, scores in found.items()}
        save_columns(columns, folder)
        return Made(distinct_tokens_in(table) * (1 + 2 * len(self.epsilons)))
