"""Validation pairs under a loaded judge, which reads their texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_bench.stages.classifier import Classifier  # its `load` is run here, so that its code counts
from align_bench.stages.columns import Measured, save_columns
from align_bench.stages.stage import Desk, Made, Sizes, Stage, Work
from align_bench.stages.tokens import distinct_tokens_in

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import Json, TokenTable
    from align_bench.stages.models import ModelKey
    from align_bench.stages.rows import Rows


@dataclass(frozen=True, kw_only=True, eq=False)
class ValidateJudge(Measured):
    """`chosen` and `rejected`: the judge's scores of both answers, in its own unit; its facts are kept for the report.

    Attributes:
        judge: the model.
        table: the rows, as the methods use them.
        texts: the same as texts.
        max_tokens: padded tokens that one pass may hold.
    """

    judge: Classifier
    table: Stage[TokenTable]
    texts: Rows
    max_tokens: int
    kind = "validation"
    label = "validation pairs"
    column = "validation"

    def needs(self) -> tuple[Stage[object], ...]:
        return (self.table,)

    def identity(self) -> dict[str, Json]:
        return self.judge.identity()

    def models(self) -> tuple[ModelKey, ...]:
        return (self.judge,)

    def estimate(self, sizes: Sizes) -> Work:
        return Work(sizes(self.table).tokens)

    def run(self, desk: Desk, folder: Path) -> Made:
        import torch

        from align_bench.records import Conversation

        table, model = desk.load(self.table), desk.model(self.judge)
        preferences = {preference.pair: preference for preference in desk.preferences(self.texts).rows}
        columns, truncated = {}, 0
        for side in ("chosen", "rejected"):
            places = [place for place, row in enumerate(table.rows) if getattr(row, side) is not None]
            pairs = [preferences[table.rows[place].pair] for place in places]
            texts = [Conversation(pair.prompt, getattr(pair, side)) for pair in pairs]
            found, truncated_here = model(texts, max_tokens=self.max_tokens, update=desk.update)
            columns[side] = torch.full((len(table.rows),), torch.nan)
            columns[side][places] = torch.tensor(found)
            truncated += truncated_here
        save_columns(columns, folder)
        return Made(distinct_tokens_in(table), {**self.judge.facts(model), "truncated": truncated})
