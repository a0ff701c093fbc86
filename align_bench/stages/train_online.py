"""A policy's adapter, trained on answers that it writes itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align_bench.stages.models import ModelKey, RewardModel
from align_bench.stages.rewards import reward_of
from align_bench.stages.stage import Desk, Sizes, Stage, Work
from align_bench.stages.train import Trained

if TYPE_CHECKING:
    from align_bench.stages.rows import Rows
    from align_bench.train.job import TrainLog


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainOnline(Trained):
    """An adapter trained by a loss on the policy's own answers, against a reward.

    Attributes:
        reward: the reward model; None for gold.
        texts: the entry that the rows are from.
    """

    reward: RewardModel | None
    texts: Rows

    def needs(self) -> tuple[Stage[object], ...]:
        return self.table, *(self.reward.needs() if self.reward else ()), *self.started

    def models(self) -> tuple[ModelKey, ...]:
        """The policy, and what it learns from."""
        return (self.model, *([self.reward] if self.reward else []))

    def estimate(self, sizes: Sizes) -> Work:
        """Answers are sampled, judged, and measured under policy and base before each update."""
        return Work(int(sizes(self.table).tokens * self.settings.epochs * 4), self.flops_per_weight)

    def fit(self, model: Any, desk: Desk) -> TrainLog:
        from align_bench.api import OnlineAlgorithm
        from align_bench.train.online import train_online

        rows, tokenizer = desk.load(self.table).rows, desk.tokenizer(self.frozen)
        reward = reward_of(desk, self._judge(desk), self.texts, tokenizer, rows, self.scoring_tokens)
        return train_online(self.job(model, desk, OnlineAlgorithm), tokenizer, reward)

    def _judge(self, desk: Desk) -> Any:
        """The reward model, loaded apart from what the desk holds, which is the policy; None for gold."""
        return self.reward.load(desk.adapter(self.reward.adapter)) if self.reward else None
