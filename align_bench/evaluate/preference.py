"""Validation pairs under a model: log-probabilities and scores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from align_bench.data.batches import mismatched
from align_bench.data.token_rows import TokenRows
from align_bench.models.layout import passes_over
from align_bench.models.logprobs import attacked_scores, response_logps, scores
from align_bench.models.positions import positions_of, within
from align_bench.models.transfer import read_late
from align_bench.records import TokenRow, no_update

if TYPE_CHECKING:
    from align_bench.models.layout import Sequences
    from align_bench.records import Update

Columns = dict[str, Tensor]
SIDES = ("chosen", "rejected")
# Of prompts with answers, whose ids are held as Python's numbers at a time. What passes together, and so how values are
# rounded, changes at the ends of parts; a table of fewer tokens is one part.
TOKENS_AT_ONCE = 2**24


def table_logps(model: Any, rows: Sequence[TokenRow], *, max_tokens: int, update: Update = no_update) -> Columns:
    """`s` of both answers of every row, without gradient.

    Args:
        model: a causal language model.
        rows: token rows.
        max_tokens: padded tokens per forward pass.
        update: progress, in distinct answers.

    Returns:
        `chosen` and `rejected`, float32 tensors of shape [rows] on the CPU, nats; NaN where a row has no such answer.
    """
    return _over_table(model, rows, response_logps, max_tokens, update)


def table_scores(model: Any, rows: Sequence[TokenRow], *, max_tokens: int, update: Update = no_update) -> Columns:
    """`r` of both answers of every row; arguments and shapes as in `table_logps`, no unit."""
    return _over_table(model, rows, scores, max_tokens, update)


def table_attacked_scores(
    model: Any, rows: Sequence[TokenRow], epsilon: float, *, max_tokens: int, update: Update = no_update
) -> Columns:
    """`r` under attack: chosen answers moved so that they score less, rejected ones so that they score more.

    Args:
        model: a reward model.
        rows: token rows.
        epsilon: size of the step on the input embeddings, × their norm; see `models.logprobs.attacked_scores`.
        max_tokens, update: as in `table_logps`, side by side.

    Returns:
        `chosen` and `rejected`, as in `table_logps`, no unit.
    """

    def lower(model: Any, answers: Sequences) -> Tensor:
        return attacked_scores(model, answers, [-1.0] * len(answers), epsilon=epsilon)[1]

    def raise_(model: Any, answers: Sequences) -> Tensor:
        return attacked_scores(model, answers, [1.0] * len(answers), epsilon=epsilon)[1]

    chosen = [replace(row, rejected=None) for row in rows]
    rejected = [replace(row, chosen=None) for row in rows]
    return {
        "chosen": _over_table(model, chosen, lower, max_tokens, update)["chosen"],
        "rejected": _over_table(model, rejected, raise_, max_tokens, update)["rejected"],
    }


def mismatched_logps(model: Any, rows: Sequence[TokenRow], *, max_tokens: int, update: Update = no_update) -> Columns:
    """`s` of each row's prompt with another row's answers, the fixed partner of `data.batches.mismatched`.

    Returns:
        `mismatched_chosen` and `mismatched_rejected`, as in `table_logps`.
    """
    partner, limit = mismatched(rows), positions_of(model)

    def behind(prompt: tuple[int, ...], answer: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """It may be longer than either row; what lies beyond the model's positions is cut."""
        return answer and tuple(within(limit, prompt, answer))

    swapped = TokenRows.of(
        TokenRow(
            row.pair,
            row.prompt,
            row.chosen and behind(row.prompt, rows[other].chosen or rows[other].rejected),
            row.rejected and behind(row.prompt, rows[other].rejected or rows[other].chosen),
        )
        for row, other in zip(rows, partner, strict=True)
    )
    found = table_logps(model, swapped, max_tokens=max_tokens, update=update)
    return {f"mismatched_{side}": values for side, values in found.items()}


def prefix_logps(model: Any, rows: Sequence[TokenRow], *, max_tokens: int, update: Update = no_update) -> Columns:
    """`s` of the first tokens of both answers, as many as the shorter of the two has.

    Returns:
        `prefix_chosen` and `prefix_rejected`, as in `table_logps`; NaN where a row has one answer.
    """
    cut = TokenRows.of(
        replace(row, chosen=None, rejected=None)
        if row.chosen is None or row.rejected is None
        else replace(row, chosen=row.chosen[: len(row.rejected)], rejected=row.rejected[: len(row.chosen)])
        for row in rows
    )
    found = table_logps(model, cut, max_tokens=max_tokens, update=update)
    return {f"prefix_{side}": values for side, values in found.items()}


def _over_table(
    model: Any, rows: Sequence[TokenRow], measure: Callable[..., Tensor], max_tokens: int, update: Update
) -> Columns:
    columns = {side: torch.full((len(rows),), math.nan) for side in SIDES}
    parts = _parts(rows)
    measured, ahead = 0, sum(part.answers for part in parts)
    with torch.no_grad():
        for part in parts:
            places = _distinct(rows, part)
            sequences = list(places)
            ahead -= part.answers
            done, total = measured, measured + len(sequences) + ahead
            passes = passes_over(model, sequences, max_tokens=max_tokens)
            together = ([sequences[number] for number in numbers] for numbers in passes)
            for some, values in read_late((some, measure(model, some).float()) for some in together):
                for sequence, value in zip(some, values, strict=True):
                    for side, index in places[sequence]:
                        columns[side][index] = value
                done += len(some)
                update(done, total)
            measured = done
    return columns


def _distinct(
    rows: Sequence[TokenRow], part: _Part
) -> dict[tuple[tuple[int, ...], tuple[int, ...]], list[tuple[str, int]]]:
    """Prompt and answer → where they stand. Pairs often share an answer, such as one model's against each of others."""
    places: dict[tuple[tuple[int, ...], tuple[int, ...]], list[tuple[str, int]]] = {}
    for index in range(part.start, part.stop):
        row = rows[index]
        for side in SIDES:
            if (answer := getattr(row, side)) is not None:
                places.setdefault((row.prompt, answer), []).append((side, index))
    return places


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows from `start` to before `stop`, and how many answers they have."""

    start: int
    stop: int
    answers: int


def _parts(rows: Sequence[TokenRow]) -> list[_Part]:
    """The rows in parts of about `TOKENS_AT_ONCE` tokens of prompts with answers; most tables are one."""
    found = TokenRows.of(rows)
    prompts = found.lengths("prompt")
    sides = np.stack([found.lengths("chosen"), found.lengths("rejected")])
    answers = (sides >= 0).sum(axis=0)
    tokens = np.where(sides >= 0, prompts + sides, 0).sum(axis=0)
    numbers = np.cumsum(tokens) // TOKENS_AT_ONCE
    bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(rows)]
    return [_Part(start, stop, int(answers[start:stop].sum())) for start, stop in itertools.pairwise(bounds)]
