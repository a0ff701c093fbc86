"""Of each prompt's draws, those that a selection picks; with more samples, one of each set of n draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from align_bench.stages.answers import Answers, Line, first_prompts, save_answers, sequences, tokens_in
from align_bench.stages.models import ModelKey, RewardModel
from align_bench.stages.rewards import reward_of
from align_bench.stages.stage import Desk, Made, Sizes, Stage, Work

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.api import Selection
    from align_bench.plugins.registry import Plugin
    from align_bench.records import Json, Parameters, TokenTable
    from align_bench.stages.generate import Generate
    from align_bench.stages.models import Frozen
    from align_bench.stages.rows import Rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Select(Answers):
    """Answers that a selection picked among draws of the base or of its start.

    Attributes:
        plugin: the method.
        parameters: all its hyper-parameters.
        draws: what it picks among, `n` for each sample.
        table: the validation rows.
        frozen: the model that they are of, without an adapter.
        reward: the reward model; None for gold.
        texts: the entry that the rows are from.
        max_tokens: padded tokens that one pass may hold.
    """

    plugin: Plugin
    parameters: Parameters
    draws: tuple[Generate, ...]
    table: Stage[TokenTable]
    frozen: Frozen
    reward: RewardModel | None
    texts: Rows
    max_tokens: int
    kind = "generations"
    label = "pick"

    @property
    def algorithm(self) -> Selection:
        """The method; the layout chose this stage by its kind."""
        return cast("Selection", self.plugin.algorithm)

    @property
    def candidates(self) -> int:
        """How many draws it picks each answer among."""
        return self.algorithm.settings(self.parameters).n

    @property
    def prompts(self) -> int:
        return self.draws[0].prompts

    def needs(self) -> tuple[Stage[object], ...]:
        return self.table, *self.draws, *(self.reward.needs() if self.reward else ())

    def identity(self) -> dict[str, Json]:
        return {
            "base": self.frozen.identity(),
            "plugin": self.plugin.digest,
            "method": self.plugin.algorithm.name,
            "parameters": dict(self.parameters),
            "gold": None if self.reward else self.texts.fingerprint,
        }

    def models(self) -> tuple[ModelKey, ...]:
        return (self.reward,) if self.reward else ()

    def expected_tokens(self, sizes: Sizes) -> int:
        return sum(one.expected_tokens(sizes) for one in self.draws) // self.candidates

    def estimate(self, sizes: Sizes) -> Work:
        """Every draw is scored."""
        return Work(sum(one.expected_tokens(sizes) for one in self.draws))

    def run(self, desk: Desk, folder: Path) -> Made:
        import torch

        from align_bench.train.plugin_code import plugin_code

        algorithm, n, table = self.algorithm, self.candidates, desk.load(self.table)
        rows, tokenizer = first_prompts(table, self.prompts), desk.tokenizer(self.frozen)
        scorer = desk.model(self.reward) if self.reward else None
        reward = reward_of(desk, scorer, self.texts, tokenizer, rows, self.max_tokens)
        drawn, scored = [desk.load(one) for one in self.draws], []
        for number, answers in enumerate(drawn):
            scored.append(reward(rows, [line["ids"] for line in answers]))
            desk.update(number + 1, len(drawn))
        lines: list[Line] = []
        for sample in range(len(drawn) // n):
            rewards = torch.tensor(scored[sample * n : (sample + 1) * n]).T
            with plugin_code(f"the choice of {algorithm.name}"):
                places = algorithm.pick(rewards, self.parameters)
            for row, place in enumerate(places):
                number = sample * n + place
                line = drawn[number][row].copy()
                line["sample"], line["draw"], line["rewards"] = sample, number, rewards[row].tolist()
                lines.append(line)
        save_answers(lines, folder)
        return Made(sum(tokens_in(sequences(answers, table)) for answers in drawn))
