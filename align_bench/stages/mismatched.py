"""Log-probabilities of other rows' answers to each prompt under the base: the reference of a KL estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align_bench.stages.columns import Measured, save_columns
from align_bench.stages.models import Frozen, ModelKey, Policy
from align_bench.stages.stage import Desk, Made, Sizes, Stage, Work
from align_bench.stages.tokens import distinct_tokens_in

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import TokenTable


@dataclass(frozen=True, kw_only=True, eq=False)
class Mismatched(Measured):
    """`mismatched_chosen` and `mismatched_rejected`: `s` of the fixed partners' answers under the base, nats.

    Attributes:
        table, frozen, max_tokens: as of a `Reference`.
    """

    table: Stage[TokenTable]
    frozen: Frozen
    max_tokens: int
    kind = "mismatched"
    label = "mismatched log-probs"

    def needs(self) -> tuple[Stage[Any], ...]:
        return (self.table,)

    def identity(self) -> dict[str, Any]:
        return self.frozen.identity()

    def models(self) -> tuple[ModelKey, ...]:
        return (Policy(self.frozen),)

    def estimate(self, sizes: Sizes) -> Work:
        return Work(sizes(self.table).tokens)

    def run(self, desk: Desk, folder: Path) -> Made:
        from align_bench.evaluate.preference import mismatched_logps

        table = desk.load(self.table)
        model = desk.model(Policy(self.frozen))
        save_columns(mismatched_logps(model, table.rows, max_tokens=self.max_tokens, tick=desk.tick), folder)
        return Made(distinct_tokens_in(table))
