"""An adapter trained by a recipe, which takes the whole training, such as a foreign trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align_bench.stages.models import ModelKey, RewardModel
from align_bench.stages.rewards import reward_of
from align_bench.stages.stage import Desk, Sizes, Stage, Work, library_versions
from align_bench.stages.train import Trained

if TYPE_CHECKING:
    from align_bench.records import Json
    from align_bench.stages.rows import Rows
    from align_bench.train.job import TrainLog


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainRecipe(Trained):
    """An adapter trained by a recipe.

    Attributes:
        reward: the reward model of one that learns from its own answers; None for gold, and for all others.
        texts: the entry that the rows are from.
        foreign: distributions that do the training.
    """

    reward: RewardModel | None
    texts: Rows
    foreign: tuple[str, ...]

    def needs(self) -> tuple[Stage[object], ...]:
        return self.table, *(self.reward.needs() if self.reward else ()), *self.started

    def identity(self) -> dict[str, Json]:
        return super().identity() | {"foreign": library_versions(self.foreign)}

    def models(self) -> tuple[ModelKey, ...]:
        return (self.model, *([self.reward] if self.reward else []))

    def estimate(self, sizes: Sizes) -> Work:
        share = 4 if self.plugin.algorithm.online else self.passes
        return Work(int(sizes(self.table).tokens * self.settings.epochs * share), self.flops_per_weight)

    def fit(self, model: Any, desk: Desk) -> TrainLog:
        import tempfile
        from pathlib import Path

        from align_bench.api import Recipe
        from align_bench.train.recipe import train_by_recipe

        rows, tokenizer = desk.load(self.table).rows, desk.tokenizer(self.frozen)
        reward = None
        if self.plugin.algorithm.online:
            reward = reward_of(desk, self._judge(desk), self.texts, tokenizer, rows, self.scoring_tokens)
        with tempfile.TemporaryDirectory() as scratch:
            return train_by_recipe(
                self.job(model, desk, Recipe),
                self.frozen.tokenizer(),  # a copy that it may change
                self.frozen.precision,
                Path(scratch),
                reward,
            )

    def leave(self, model: Any, desk: Desk) -> None:
        """Let the base go: a foreign trainer may have left anything on it."""

    def _judge(self, desk: Desk) -> Any:
        """The reward model, loaded apart from what the desk holds, which is the policy; None for gold."""
        return self.reward.load(desk.adapter(self.reward.adapter)) if self.reward else None
