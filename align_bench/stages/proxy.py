"""Scores of answers by the reward model that a policy learned from or picked by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_bench.stages.answers import Answers, sequences, tokens_in, work_on
from align_bench.stages.models import ModelKey, RewardModel
from align_bench.stages.scores import Scores, save_scores
from align_bench.stages.stage import Desk, Made, Sizes, Stage, Work

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import CellId, Json


@dataclass(frozen=True, kw_only=True, eq=False)
class Proxy(Scores):
    """Scores by a reward model of the suite.

    Attributes:
        reward: the reward model.
        reward_cell: its cell.
        answers: what it scores.
        max_tokens: padded tokens that one pass may hold.
        of_base: whether the answers are the base's, which is whole without such scores.
    """

    reward: RewardModel
    reward_cell: CellId
    answers: Answers
    max_tokens: int
    of_base: bool = False
    kind = "proxy"

    @property
    def label(self) -> str:
        return f"proxy {self.reward_cell}"

    @property
    def optional(self) -> bool:
        return self.of_base

    def needs(self) -> tuple[Stage[object], ...]:
        return self.answers.table, self.answers, *self.reward.needs()

    def identity(self) -> dict[str, Json]:
        return self.reward.identity()

    def models(self) -> tuple[ModelKey, ...]:
        return (self.reward,)

    def estimate(self, sizes: Sizes) -> Work:
        return work_on(self.answers, sizes)

    def run(self, desk: Desk, folder: Path) -> Made:
        from align_bench.judge.reward_model import score_answers

        answers = sequences(desk.load(self.answers), desk.load(self.answers.table))
        scores = score_answers(desk.model(self.reward), answers, max_tokens=self.max_tokens, update=desk.update)
        save_scores(scores, folder)
        return Made(tokens_in(answers))
