"""Log-probabilities of a table's answers under a reference, which all methods with that reference share."""

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
    """`chosen` and `rejected`: `s` of both answers under the base, or under a policy that others start from, nats.

    Attributes:
        table: the rows.
        frozen: the base.
        adapter: the adapter of the policy that others start from; None for the base itself.
        max_tokens: padded tokens that one pass may hold; it changes no result beyond rounding.
        label: what is shown while it is made; the base's own column is its measurement of pairs.
    """

    table: Stage[TokenTable]
    frozen: Frozen
    max_tokens: int
    adapter: Stage[object] | None = None
    label: str = "reference log-probs"
    kind = "reference"
    column = "validation"

    @property
    def policy(self) -> Policy:
        """The model whose log-probabilities they are."""
        return Policy(self.frozen, self.adapter)

    def needs(self) -> tuple[Stage[object], ...]:
        return self.table, *self.policy.needs()

    def identity(self) -> dict[str, Json]:
        return self.frozen.identity()

    def models(self) -> tuple[ModelKey, ...]:
        return (self.policy,)

    def estimate(self, sizes: Sizes) -> Work:
        return Work(sizes(self.table).tokens)

    def run(self, desk: Desk, folder: Path) -> Made:
        table = desk.load(self.table)
        columns = self.measure(desk.model(self.policy), table.rows, desk.update)
        save_columns(columns, folder)
        return Made(distinct_tokens_in(table))

    def measure(self, model: Any, rows: Sequence[TokenRow], update: Update) -> Mapping[str, Tensor]:
        """The columns, each of shape [rows], nats."""
        from align_bench.evaluate.preference import table_logps

        return table_logps(model, rows, max_tokens=self.max_tokens, update=update)
