"""Token sequences as a model's input: answers to one prompt share its tokens where the architecture allows it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

# Attention over a row grows with the square of its length, so that more answers would cost more than they save.
ANSWERS_PER_ROW = 3
_SHARES_PROMPTS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()

Sequences = Sequence[tuple[Sequence[int], Sequence[int]]]


@dataclass(frozen=True, slots=True)
class Layout:
    """Sequences laid out as rows `[prompt | answer | answer …]`, right-padded.

    Attributes:
        inputs: keyword arguments of a decoder: `input_ids` and `attention_mask` of shape [rows, longest]; where prompts
            are shared, an additive mask of shape [rows, 1, longest, longest] and `position_ids`.
        row: for each sequence, its row.
        prompt: for each sequence, the length of its prompt.
        start: for each sequence, the column of its answer's first token.
    """

    inputs: dict[str, Tensor]
    row: list[int]
    prompt: list[int]
    start: list[int]


def inner_of(model: Any) -> Any:
    """The transformers model, with adapter layers in place, under peft's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def lay_out(inner: Any, sequences: Sequences, *, share: bool = True) -> Layout:
    """Rows for one forward pass.

    Args:
        inner: the transformers model that they go through.
        sequences: (prompt ids, answer ids) pairs; prompts are not empty, answers may be.
        share: whether answers to one prompt may share its tokens.
    """
    groups = _groups(sequences)
    lengths = [_length(sequences, group) for group in groups]
    if not share or len(groups) == len(sequences) or not _can_share(inner, max(lengths)):
        groups = [[index] for index in range(len(sequences))]
        lengths = [_length(sequences, group) for group in groups]
    row, prompt, start = ([0] * len(sequences) for _ in range(3))
    for number, group in enumerate(groups):
        column = len(sequences[group[0]][0])
        for index in group:
            row[index], prompt[index], start[index] = number, len(sequences[index][0]), column
            column += len(sequences[index][1])
    shared = len(groups) < len(sequences)
    inputs = (_shared_inputs if shared else _plain_inputs)(inner, sequences, groups, max(lengths))
    return Layout(inputs, row, prompt, start)


def _groups(sequences: Sequences) -> list[list[int]]:
    """Numbers of the sequences that share a row, in order of appearance."""
    open_rows: dict[tuple[int, ...], list[int]] = {}
    groups = []
    for index, (prompt, _) in enumerate(sequences):
        key = tuple(prompt)
        if key not in open_rows or len(open_rows[key]) == ANSWERS_PER_ROW:
            open_rows[key] = []
            groups.append(open_rows[key])
        open_rows[key].append(index)
    return groups


def _length(sequences: Sequences, group: Sequence[int]) -> int:
    return len(sequences[group[0]][0]) + sum(len(sequences[index][1]) for index in group)


def _plain_inputs(inner: Any, sequences: Sequences, groups: Sequence[Sequence[int]], longest: int) -> dict[str, Tensor]:
    """Ids and their mask; the pad id is 0, which the mask hides."""
    ids = torch.zeros(len(groups), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, group in enumerate(groups):
        tokens = [*sequences[group[0]][0], *(token for index in group for token in sequences[index][1])]
        ids[number, : len(tokens)] = torch.tensor(tokens)
        mask[number, : len(tokens)] = 1
    return {"input_ids": ids.to(inner.device), "attention_mask": mask.to(inner.device)}


def _shared_inputs(
    inner: Any, sequences: Sequences, groups: Sequence[Sequence[int]], longest: int
) -> dict[str, Tensor]:
    """Each answer sees the prompt and itself, and stands right behind the prompt."""
    plain = _plain_inputs(inner, sequences, groups, longest)
    ids = plain["input_ids"].cpu()
    positions = torch.zeros_like(ids)
    owner = torch.full_like(ids, -1)  # 0: prompt, 1, 2, …: the answers, −1: padding
    for number, group in enumerate(groups):
        column = len(sequences[group[0]][0])
        positions[number, :column] = torch.arange(column)
        owner[number, :column] = 0
        for place, index in enumerate(group, start=1):
            answer = slice(column, column + len(sequences[index][1]))
            positions[number, answer] = len(sequences[index][0]) + torch.arange(answer.stop - answer.start)
            owner[number, answer] = place
            column = answer.stop
    owner = owner.to(inner.device)
    # Padding sees padding: a row of the mask that allows nothing would give NaN.
    visible = (owner[:, :, None] == owner[:, None, :]) | ((owner[:, None, :] == 0) & (owner[:, :, None] > 0))
    causal = torch.ones(longest, longest, dtype=torch.bool, device=inner.device).tril()
    hidden = ~(visible & causal)[:, None]
    mask = torch.zeros(hidden.shape, dtype=inner.dtype, device=inner.device)
    mask.masked_fill_(hidden, torch.finfo(inner.dtype).min)
    return plain | {"attention_mask": mask, "position_ids": positions.to(inner.device)}


def _can_share(inner: Any, longest: int) -> bool:
    """Whether this model reads rows of this length right: no sliding window cuts them, and the probe agrees."""
    window = getattr(inner.config.get_text_config(), "sliding_window", None)
    if window is not None and longest > window:
        return False
    if inner not in _SHARES_PROMPTS:
        _SHARES_PROMPTS[inner] = _probe(inner)
        if not _SHARES_PROMPTS[inner]:
            warnings.warn(
                f"{type(inner).__name__} cannot read two answers behind one prompt; each goes with a prompt of its own "
                "(slower, same numbers)",
                stacklevel=2,
            )
    return _SHARES_PROMPTS[inner]


def _probe(inner: Any) -> bool:
    """Compare hidden states of two short answers behind one prompt with those of each alone."""
    sequences = [((0, 1, 2), (3, 4)), ((0, 1, 2), (5, 3, 1))]
    decoder = getattr(inner, inner.base_model_prefix)
    training = inner.training
    inner.eval()

    def hidden(inputs: dict[str, Tensor]) -> Tensor:
        states: Tensor = decoder(**inputs, use_cache=False).last_hidden_state
        return states.float()

    try:
        with torch.no_grad():
            together = hidden(_shared_inputs(inner, sequences, [[0, 1]], 8))[0]
            first, second = hidden(_plain_inputs(inner, sequences, [[0], [1]], 6))
    except Exception:  # an architecture may object in any way to a mask or positions of this kind
        return False
    finally:
        inner.train(training)
    alone = torch.cat([first[:5], second[3:6]])
    exact = inner.dtype == torch.float32
    return bool((together - alone).norm() <= (1e-4 if exact else 0.05) * alone.norm())
