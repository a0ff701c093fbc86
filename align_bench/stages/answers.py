"""Answers to validation prompts, as stages keep them: one line per answer."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict

from align_bench.stages.stage import Size, Sizes, Stage, Work

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import Conversation, Preference, TokenRow, TokenTable
    from align_bench.store.store import Artefact

FILE = "answers.jsonl"


class Line(TypedDict):
    """One answer, as its line of the file has it.

    Attributes:
        pair: the number of the row whose prompt is answered.
        sample: 0-based number among the samples of this prompt.
        text: the answer, without the end-of-turn token.
        ids: its token ids, end of turn included.
        finished: whether it ended by itself.
        draw: of a selection's pick: which draw it is.
        rewards: of a selection's pick: the reward of each draw of its set.
    """

    pair: int
    sample: int
    text: str
    ids: Sequence[int]
    finished: bool
    draw: NotRequired[int]
    rewards: NotRequired[Sequence[float]]


class Answers(Stage["list[Line]"]):
    """Answers to prompts: lines of `pair`, `sample`, `ids`, `text`, `finished`, in the order of the prompts.

    Attributes:
        table: the validation rows.
    """

    table: Stage[TokenTable]
    column = "generate"

    @property
    @abstractmethod
    def prompts(self) -> int:
        """How many of the first distinct prompts are answered."""

    def load(self, artefact: Artefact) -> list[Line]:
        text = (artefact / FILE).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]

    @abstractmethod
    def expected_tokens(self, sizes: Sizes) -> int:
        """Tokens of all its answers with their prompts, half of the longest answer each."""


def expected(size: Size, prompts: int, samples: int, max_new_tokens: int) -> int:
    """Tokens of answers with their prompts, as `Answers.expected_tokens` counts them."""
    prompt = size.prompt_tokens // max(1, size.rows)
    return min(prompts, size.prompts) * samples * (prompt + max_new_tokens // 2)


def save_answers(lines: Sequence[Line], folder: Path) -> None:
    """Write answers as an artefact's file."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / FILE).write_text(text, encoding="utf-8")


def first_prompts(table: TokenTable, count: int) -> list[TokenRow]:
    """The first rows with distinct prompts: the same prompt answered twice is no second observation."""
    distinct: dict[tuple[int, ...], TokenRow] = {}
    for row in table.rows:
        distinct.setdefault(row.prompt, row)
    return list(distinct.values())[:count]


def sequences(lines: Sequence[Line], table: TokenTable) -> list[tuple[Sequence[int], Sequence[int]]]:
    """Answers as (prompt ids, answer ids) pairs."""
    prompts = {row.pair: row.prompt for row in table.rows}
    return [(prompts[line["pair"]], line["ids"]) for line in lines]


def conversations(lines: Sequence[Line], preferences: Mapping[int, Preference]) -> list[Conversation]:
    """Answers as texts, under the prompts of the rows with these numbers."""
    from align_bench.records import Conversation

    return [Conversation(preferences[line["pair"]].prompt, line["text"], line["finished"]) for line in lines]


def tokens_in(answers: Sequence[tuple[Sequence[int], Sequence[int]]]) -> int:
    """Tokens of answers with their prompts."""
    return sum(len(prompt) + len(answer) for prompt, answer in answers)


def work_on(answers: Answers, sizes: Sizes, passes: int = 1) -> Work:
    """What reading all answers so many times costs."""
    return Work(passes * answers.expected_tokens(sizes))
