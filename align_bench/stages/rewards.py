"""What judges answers to rows while a policy learns or a selection picks: a reward model of the suite, or gold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align_bench.records import TokenRow
    from align_bench.stages.rows import Rows
    from align_bench.stages.stage import Desk

    Reward = Callable[[Sequence[TokenRow], Sequence[Sequence[int]]], Sequence[float]]


def reward_of(
    desk: Desk, scorer: Any, texts: Rows, tokenizer: object, rows: Sequence[TokenRow], max_tokens: int
) -> Reward:
    """A function from rows and the ids of an answer to each to one number each, in the reward's unit.

    Args:
        desk: what the stage may ask for.
        scorer: a loaded reward model; None for gold.
        texts: the entry that the rows are from, which knows their right answers.
        tokenizer: the base's.
        rows: the rows that will be asked for.
        max_tokens: padded tokens that one pass may hold.

    Raises:
        DataError: when gold is asked and a row has no right answer.
    """
    if scorer is None:
        from align_bench.judge.gold import gold_reward

        preferences = {preference.pair: preference for preference in desk.preferences(texts).rows}
        return gold_reward(tokenizer, [preferences[row.pair] for row in rows])
    from align_bench.judge.reward_model import score_answers

    def judged(rows: Sequence[TokenRow], answers: Sequence[Sequence[int]]) -> list[float]:
        pairs = [(row.prompt, answer) for row, answer in zip(rows, answers, strict=True)]
        return score_answers(scorer, pairs, max_tokens=max_tokens)

    return judged
