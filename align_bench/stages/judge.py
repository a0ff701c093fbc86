"""A judge's scores of a cell's answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_bench.stages.answers import Answers, conversations, sequences, tokens_in, work_on
from align_bench.stages.classifier import Classifier
from align_bench.stages.models import ModelKey, RewardModel
from align_bench.stages.scores import Scores, save_scores
from align_bench.stages.stage import Desk, Made, Sizes, Stage, Work

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import CellId, Json
    from align_bench.stages.rows import Rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge(Scores):
    """Scores by a judge, or by a member of its ensemble.

    Attributes:
        judge: the model.
        judge_cell: the judge's cell.
        answers: what it scores.
        texts: the entry that the prompts are from.
        max_tokens: padded tokens that one pass may hold.
    """

    judge: RewardModel | Classifier
    judge_cell: CellId
    answers: Answers
    texts: Rows
    max_tokens: int
    kind = "judged"

    @property
    def label(self) -> str:
        return "judge" if str(self.judge_cell) == "judge" else f"judge ({self.judge_cell})"

    @property
    def blamed_cell(self) -> CellId:
        return self.judge_cell

    def needs(self) -> tuple[Stage[object], ...]:
        return self.answers.table, self.answers, *self.judge.needs()

    def identity(self) -> dict[str, Json]:
        return self.judge.identity()

    def models(self) -> tuple[ModelKey, ...]:
        return (self.judge,)

    def estimate(self, sizes: Sizes) -> Work:
        return work_on(self.answers, sizes)

    def run(self, desk: Desk, folder: Path) -> Made:
        lines, truncated = desk.load(self.answers), 0
        answers = sequences(lines, desk.load(self.answers.table))
        if isinstance(self.judge, Classifier):
            preferences = {preference.pair: preference for preference in desk.preferences(self.texts).rows}
            texts = conversations(lines, preferences)
            scores, truncated = desk.model(self.judge)(texts, max_tokens=self.max_tokens, update=desk.update)
        else:
            from align_bench.judge.reward_model import score_answers

            scores = score_answers(desk.model(self.judge), answers, max_tokens=self.max_tokens, update=desk.update)
        save_scores(scores, folder)
        return Made(tokens_in(answers), {"truncated": truncated})
