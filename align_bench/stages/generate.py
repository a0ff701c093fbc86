"""Answers of a policy, or of the base, to validation prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from align_bench.stages.answers import Answers, Line, expected, first_prompts, save_answers
from align_bench.stages.models import ModelKey, Policy
from align_bench.stages.stage import Desk, Made, Sizes, Stage, Work

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import Json, TokenTable
    from align_bench.suite.models import Generate as Settings


@dataclass(frozen=True, kw_only=True, eq=False)
class Generate(Answers):
    """Answers as the model writes them.

    Attributes:
        policy: the model.
        table: the validation rows.
        settings: how it answers.
        seed: of sampling.
        label: what is shown while it is made.
    """

    policy: Policy
    table: Stage[TokenTable]
    settings: Settings
    seed: int
    label: str = "generate"
    kind = "generations"

    @property
    def prompts(self) -> int:
        return self.settings.prompts

    def needs(self) -> tuple[Stage[object], ...]:
        return self.table, *self.policy.needs()

    def identity(self) -> dict[str, Json]:
        return {"model": self.policy.identity(), "generate": self.settings.model_dump(), "seed": self.seed}

    def models(self) -> tuple[ModelKey, ...]:
        return (self.policy,)

    def expected_tokens(self, sizes: Sizes) -> int:
        return expected(sizes(self.table), self.prompts, self.settings.samples, self.settings.max_new_tokens)

    def estimate(self, sizes: Sizes) -> Work:
        return Work(self.expected_tokens(sizes))

    def run(self, desk: Desk, folder: Path) -> Made:
        from align_bench.models.generate import generate

        rows = first_prompts(desk.load(self.table), self.prompts)
        tokenizer, model = desk.tokenizer(self.policy.frozen), desk.model(self.policy)
        prompts = [row.prompt for row in rows]
        answers = generate(model, tokenizer, prompts, self.settings, seed=self.seed, update=desk.update)
        lines: list[Line] = [
            {
                "pair": row.pair,
                "sample": sample,
                "text": tokenizer.decode(answer.ids, skip_special_tokens=True),
                "ids": answer.ids,
                "finished": answer.finished,
            }
            for row, samples in zip(rows, answers, strict=True)
            for sample, answer in enumerate(samples)
        ]
        save_answers(lines, folder)
        return Made(sum(len(line["ids"]) for line in lines))


def draw(answers: Generate, number: int, of: int) -> Generate:
    """One answer to each prompt, for selections of its temperature and seed to pick among.

    Its seed is apart from those of cells, and the same for every number of draws.

    Args:
        answers: what answers and how, and the selection's seed.
        number: which draw, 0-based.
        of: how many there are.
    """
    settings = answers.settings.model_copy(update={"samples": 1})
    seed = 1_000_000 * (number + 1) + answers.seed
    return replace(answers, settings=settings, seed=seed, label=f"draw {number + 1} of {of}")
