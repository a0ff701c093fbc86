"""Log-probabilities of a table's answers under the base, which every method that reads a reference shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align_bench.stages.columns import Measured, save_columns
from align_bench.stages.models import Frozen, ModelKey, Policy
from align_bench.stages.stage import Desk, Made, Sizes, Stage, Work
from align_bench.stages.tokens import distinct_tokens_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from align_bench.records import Json, TokenRow, TokenTable, Update


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference(Measured):
    """`chosen` and `rejected`: `s` of both answers under the base, nats.

    Attributes:
        table: the rows.
        frozen: the base.
        max_tokens: padded tokens that one pass may hold; it changes no result beyond rounding.
        label: what is shown while it is made; the base's own column is its measurement of pairs.
    """

    table: Stage[TokenTable]
    frozen: Frozen
    max_tokens: int
    label: str = "reference log-probs"
    kind = "reference"
    column = "validation"

    def needs(self) -> tuple[Stage[object], ...]:
        return (self.table,)

    def identity(self) -> dict[str, Json]:
        return self.frozen.identity()

    def models(self) -> tuple[ModelKey, ...]:
        return (Policy(self.frozen),)

    def estimate(self, sizes: Sizes) -> Work:
        return Work(sizes(self.table).tokens)

    def run(self, desk: Desk, folder: Path) -> Made:
        table = desk.load(self.table)
        columns = self.measure(desk.model(Policy(self.frozen)), table.rows, desk.update)
        save_columns(columns, folder)
        return Made(distinct_tokens_in(table))

    def measure(self, model: Any, rows: Sequence[TokenRow], update: Update) -> Mapping[str, Tensor]:
        """The columns, each of shape [rows], nats."""
        from align_bench.evaluate.preference import table_logps

        return table_logps(model, rows, max_tokens=self.max_tokens, update=update)
