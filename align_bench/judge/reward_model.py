"""A reward model trained here, as a judge of answers: of token ids, and of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from align_bench.data.chat import tokenize
from align_bench.models.layout import passes_over
from align_bench.models.logprobs import scores
from align_bench.models.transfer import read_late
from align_bench.records import Preference, PreferenceSet, no_update

if TYPE_CHECKING:
    from align_bench.records import Conversation, Update


class Scorer(Protocol):
    """Whatever scores texts."""

    def __call__(
        self, conversations: Sequence[Conversation], *, max_tokens: int, update: Update = no_update
    ) -> tuple[list[float], int]:
        """Score answers to prompts.

        Args:
            conversations: the texts.
            max_tokens: padded tokens per forward pass.
            update: progress, in conversations.

        Returns:
            One score per conversation, in the order given, NaN where the prompt leaves no room for an answer; and how
            many were truncated because they are too long.
        """


@dataclass(frozen=True, slots=True)
class RewardModel:
    """A reward model trained here: texts are written as its training rows were.

    Attributes:
        model: the frozen base with its adapter and scalar head.
        tokenizer: the base's.
        max_length: tokens of prompt + answer, as in training.
    """

    model: Any
    tokenizer: Any
    max_length: int

    def __call__(
        self, conversations: Sequence[Conversation], *, max_tokens: int, update: Update = no_update
    ) -> tuple[list[float], int]:
        """See `Scorer`."""
        places, answers, truncated = self.tokenized(conversations)
        found = [math.nan] * len(conversations)
        measured = score_answers(self.model, answers, max_tokens=max_tokens, update=update)
        for place, value in zip(places, measured, strict=True):
            found[place] = value
        return found, truncated

    def tokenized(
        self, conversations: Sequence[Conversation]
    ) -> tuple[list[int], list[tuple[Sequence[int], Sequence[int]]], int]:
        """Texts tokenized as the model's training rows were; an unfinished answer gets no end-of-turn token.

        Returns:
            The numbers of those whose prompt leaves room for an answer, their (prompt ids, answer ids) pairs, and how
            many answers were truncated because they are too long.
        """
        if not conversations:
            return [], [], 0
        rows = tuple(
            Preference(number, conversation.prompt, conversation.answer, None)
            for number, conversation in enumerate(conversations)
        )
        table = tokenize(self.tokenizer, PreferenceSet(rows, "answers", {}), max_length=self.max_length)
        answers: list[tuple[Sequence[int], Sequence[int]]] = []
        for row in table.rows:
            answer = row.chosen or ()
            whole = len(row.prompt) + len(answer) < self.max_length
            answers.append((row.prompt, answer if conversations[row.pair].finished or not whole else answer[:-1]))
        return [row.pair for row in table.rows], answers, table.counts.get("truncated", 0)


def score_answers(
    model: Any,
    answers: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    max_tokens: int,
    update: Update = no_update,
) -> list[float]:
    """`r` of each answer.

    Args:
        model: a reward model.
        answers: (prompt ids, answer ids) pairs, answers as generated: an unfinished one has no end-of-turn token.
        max_tokens: padded tokens per forward pass.
        update: progress, in answers.

    Returns:
        One score per answer, in the order given, no unit. It does not depend on what else is in its batch.
    """
    found = [0.0] * len(answers)
    done = 0
    with torch.no_grad():
        passes = passes_over(model, answers, max_tokens=max_tokens)
        scored = ((numbers, scores(model, [answers[number] for number in numbers])) for numbers in passes)
        for numbers, values in read_late(scored):
            for number, value in zip(numbers, values.tolist(), strict=True):
                found[number] = value
            done += len(numbers)
            update(done, len(answers))
    return found
