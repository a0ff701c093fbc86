"""The common judge: a trained reward model that scores every generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from align_bench.data.batches import micro_batches
from align_bench.models.logprobs import scores
from align_bench.records import Tick, silent


def score_answers(
    model: Any,
    answers: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    max_tokens: int,
    tick: Tick = silent,
) -> list[float]:
    """`r` of each answer.

    Args:
        model: a reward model.
        answers: (prompt ids, answer ids) pairs, answers as generated: an unfinished one has no end-of-turn token.
        max_tokens: padded tokens per forward pass.
        tick: progress, in answers.

    Returns:
        One score an answer, in the order given, no unit. It does not depend on what else is in its batch.
    """
    found = [0.0] * len(answers)
    lengths = [len(prompt) + len(answer) for prompt, answer in answers]
    done = 0
    with torch.no_grad():
        for micro in micro_batches(range(len(answers)), lengths, max_tokens=max_tokens):
            for index, value in zip(micro, scores(model, [answers[index] for index in micro]).tolist(), strict=True):
                found[index] = value
            done += len(micro)
            tick(done, len(answers))
    return found
