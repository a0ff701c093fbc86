"""Token sequences as a model's input: what several begin with passes once where the architecture allows it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from align_bench.models.cuda_graphs import graphs_for
from align_bench.models.micro_batches import even_passes, fitting, micro_batches
from align_bench.models.packed_attention import Piece, attending
from align_bench.models.shared_prefixes import in_order
from align_bench.models.transfer import on_device

# Attention over a row grows with the square of its length, so that more answers would cost more than they save.
ANSWERS_PER_ROW = 3
# A start that sequences have in common, such as the template's system prompt, is read once a pass if it is as long.
_WORTH_SHARING = 8
_SHARES_PROMPTS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
_PACKS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()

Sequences = Sequence[tuple[Sequence[int], Sequence[int]]]
Columns = npt.NDArray[np.int64]
_NONE: Columns = np.arange(0)


@dataclass(frozen=True, slots=True)
class Layout:
    """Sequences laid out as rows `[prompt | answer | answer …]`, right-padded; or all of them as one row, unpadded.

    Attributes:
        inputs: keyword arguments of a decoder: `input_ids` and `attention_mask` of shape [rows, longest]; where prompts
            are shared, and on accelerators, an additive mask of shape [rows, 1, longest, longest] and `position_ids`;
            where all is one row, no mask.
        row: for each sequence, its row.
        columns: for each sequence, the columns of its tokens, prompt and answer, in order.
        pieces: what attention keeps to in one unpadded row; empty for padded rows.
    """

    inputs: dict[str, Tensor]
    row: list[int]
    columns: list[Columns]
    pieces: tuple[Piece, ...] = ()

    def through(self, inner: Any, module: Any, *, use_cache: bool = False, **more: Any) -> Any:
        """What a model, or its decoder as `module`, makes of the rows."""
        with attending(inner.config.get_text_config(), self.pieces) if self.pieces else nullcontext():
            return module(**self.inputs, use_cache=use_cache, **more)

    def states(self, inner: Any, decoder: Any) -> Tensor:
        """The decoder's last hidden states, shape [rows, longest, width]."""
        if (used := graphs_for(decoder, self.inputs)) is not None:
            return used.states(decoder, self.inputs)
        states: Tensor = self.through(inner, decoder).last_hidden_state
        return states


def inner_of(model: Any) -> Any:
    """The transformers model, with adapter layers in place, under peft's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def training_passes(model: Any, indices: Sequence[int], lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Which rows of one effective batch pass the model together in training.

    Args:
        model: plain or with an adapter.
        indices, lengths, max_tokens: as in `models.micro_batches.micro_batches`.

    Returns:
        Row numbers, longest pass first.
    """
    inner = inner_of(model)
    if can_pack(inner, max((lengths[index] for index in indices), default=0)):
        return even_passes(indices, lengths, max_tokens=max_tokens)
    return micro_batches(indices, lengths, max_tokens=max_tokens)


def passes_over(model: Any, sequences: Sequences, *, max_tokens: int) -> list[list[int]]:
    """Which sequences pass the model together: what begins alike side by side.

    Args:
        model: plain or with an adapter.
        sequences: (prompt ids, answer ids) pairs.
        max_tokens: as in `models.micro_batches.micro_batches`; in a row without padding, the tokens that pass.

    Returns:
        Numbers of sequences, a list a pass.
    """
    if not sequences:
        return []
    inner = inner_of(model)
    if can_pack(inner, _longest(sequences)):
        return _full_rows(sequences, fitting(max_tokens))
    groups = _groups(sequences)
    lengths = [_length(sequences, group) for group in groups]
    if not can_share(inner, max(lengths)):
        groups = [[index] for index in range(len(sequences))]
        lengths = [_length(sequences, group) for group in groups]
    micros = micro_batches(range(len(groups)), lengths, max_tokens=max_tokens)
    return [[number for group in micro for number in groups[group]] for micro in micros]


def _full_rows(sequences: Sequences, max_tokens: int) -> list[list[int]]:
    """Sequences in the order of their tokens, cut where a row would have more than so many; a longer one goes alone."""
    found: list[list[int]] = []
    tokens = 0
    for number, common in in_order([(*prompt, *answer) for prompt, answer in sequences]):
        length = len(sequences[number][0]) + len(sequences[number][1])
        own = length - common if common >= _WORTH_SHARING else length
        if found and tokens + own <= max_tokens:
            found[-1].append(number)
            tokens += own
        else:
            found.append([number])
            tokens = length
    return found


def lay_out(inner: Any, sequences: Sequences, *, share: bool = True) -> Layout:
    """Rows for one forward pass.

    Args:
        inner: the transformers model that they go through.
        sequences: (prompt ids, answer ids) pairs; prompts are not empty, answers may be.
        share: whether answers to one prompt may share its tokens.
    """
    if share and can_pack(inner, _longest(sequences)):
        return _packed(sequences, worth=_WORTH_SHARING)
    groups = _groups(sequences)
    lengths = [_length(sequences, group) for group in groups]
    if not share or len(groups) == len(sequences) or not can_share(inner, max(lengths)):
        groups = [[index] for index in range(len(sequences))]
        lengths = [_length(sequences, group) for group in groups]
    row = [0] * len(sequences)
    columns = [_NONE] * len(sequences)
    for number, group in enumerate(groups):
        prompt = start = len(sequences[group[0]][0])
        for index in group:
            stop = start + len(sequences[index][1])
            row[index], columns[index] = number, np.concatenate((np.arange(prompt), np.arange(start, stop)))
            start = stop
    # transformers reads a plain mask, to see whether it hides anything, and an accelerator would be waited for.
    whole = len(groups) < len(sequences) or (inner.device.type != "cpu" and can_share(inner, max(lengths)))
    inputs = (_shared_inputs if whole else _plain_inputs)(inner, sequences, groups, max(lengths))
    return Layout(inputs, row, columns)


def _packed(sequences: Sequences, *, worth: int) -> Layout:
    """One row, in which each sequence continues the one that it shares most of its first tokens with.

    Args:
        sequences: as in `lay_out`.
        worth: the least number of common tokens to share.
    """
    tokens = [(*prompt, *answer) for prompt, answer in sequences]
    ids: list[int] = []
    positions: list[int] = []
    pieces: list[Piece] = []
    columns = [_NONE] * len(sequences)
    path: list[tuple[int, int]] = []  # of the sequence before: pieces, and how many first tokens of each
    before = _NONE  # its columns
    for index, common in in_order(tokens):
        shared = common if common >= worth else 0
        own = tokens[index][shared:]
        path = _cut(path, shared)
        before = columns[index] = np.concatenate((before[:shared], np.arange(len(ids), len(ids) + len(own))))
        if own:
            pieces.append(Piece(len(own), tuple(path)))
            path = [*path, (len(pieces) - 1, len(own))]
        ids += own
        positions += range(shared, shared + len(own))
    inputs = {"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([positions])}
    return Layout(inputs, [0] * len(sequences), columns, tuple(pieces))


def _cut(path: Sequence[tuple[int, int]], tokens: int) -> list[tuple[int, int]]:
    """The first tokens of a path."""
    found = []
    for piece, length in path:
        if tokens > 0:
            found.append((piece, min(length, tokens)))
            tokens -= length
    return found


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


def _longest(sequences: Sequences) -> int:
    return max(len(prompt) + len(answer) for prompt, answer in sequences)


def _length(sequences: Sequences, group: Sequence[int]) -> int:
    return len(sequences[group[0]][0]) + sum(len(sequences[index][1]) for index in group)


def _plain_inputs(inner: Any, sequences: Sequences, groups: Sequence[Sequence[int]], longest: int) -> dict[str, Tensor]:
    """Ids and their mask; the pad id is 0, which the mask hides."""
    ids = _ids(sequences, groups, longest)
    lengths = np.array([_length(sequences, group) for group in groups])
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    return {"input_ids": on_device(ids, inner.device), "attention_mask": on_device(mask, inner.device)}


def _ids(sequences: Sequences, groups: Sequence[Sequence[int]], longest: int) -> npt.NDArray[np.int64]:
    """Token ids of each group's row, padded with 0, shape [groups, longest]."""
    ids = np.zeros((len(groups), longest), dtype=np.int64)
    for number, group in enumerate(groups):
        tokens = list(chain(sequences[group[0]][0], *(sequences[index][1] for index in group)))
        ids[number, : len(tokens)] = tokens
    return ids


def _shared_inputs(
    inner: Any, sequences: Sequences, groups: Sequence[Sequence[int]], longest: int
) -> dict[str, Tensor]:
    """Each answer sees the prompt and itself, and stands right behind the prompt."""
    ids = _ids(sequences, groups, longest)
    positions = np.zeros_like(ids)
    owners = np.full_like(ids, -1)  # 0: prompt, 1, 2, …: the answers, −1: padding
    for number, group in enumerate(groups):
        start = len(sequences[group[0]][0])
        positions[number, :start] = np.arange(start)
        owners[number, :start] = 0
        for place, index in enumerate(group, start=1):
            stop = start + len(sequences[index][1])
            first = len(sequences[index][0])
            positions[number, start:stop] = np.arange(first, first + stop - start)
            owners[number, start:stop] = place
            start = stop
    owner = on_device(owners, inner.device)
    # Padding sees padding: a row of the mask that allows nothing would give NaN.
    visible = (owner[:, :, None] == owner[:, None, :]) | ((owner[:, None, :] == 0) & (owner[:, :, None] > 0))
    causal = torch.ones(longest, longest, dtype=torch.bool, device=inner.device).tril()
    hidden = ~(visible & causal)[:, None]
    return {
        "input_ids": on_device(ids, inner.device),
        "attention_mask": additive_mask(hidden, inner.dtype),
        "position_ids": on_device(positions, inner.device),
    }


def additive_mask(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """What attention adds to its scores: 0, or the least number where a column is hidden; same shape.

    Rows begin at multiples of eight numbers. A GPU's attention asks for that, and would copy other masks in each layer.
    """
    *rows, columns = hidden.shape
    mask = torch.zeros(*rows, aligned(columns), dtype=dtype, device=hidden.device)[..., :columns]
    return mask.masked_fill_(hidden, torch.finfo(dtype).min)


def aligned(columns: int) -> int:
    """The next multiple of eight."""
    return -(-columns // 8) * 8


def can_share(inner: Any, longest: int) -> bool:
    """Whether this model reads shared rows of this length right: no sliding window cuts them, and the probe agrees."""
    if _slides(inner, longest):
        return False
    if inner not in _SHARES_PROMPTS:
        _SHARES_PROMPTS[inner] = _probe(inner, _shared_probe)
        if not _SHARES_PROMPTS[inner]:
            warnings.warn(
                f"{type(inner).__name__} cannot read two answers behind one prompt; each goes with a prompt of its own "
                "(slower, same numbers)",
                stacklevel=2,
            )
    return _SHARES_PROMPTS[inner]


def can_pack(inner: Any, longest: int) -> bool:
    """Whether this model reads sequences in one unpadded row right, the longest of so many tokens.

    It does where attention is SDPA's, no window cuts it, and the probe agrees.

    On a CPU only: an accelerator, where starting a kernel costs more than padding does, reads padded rows.
    """
    config = inner.config.get_text_config()
    if inner.device.type != "cpu" or config._attn_implementation != "sdpa" or _recomputes(inner):
        return False
    if _slides(inner, longest):
        return False
    if inner not in _PACKS:
        _PACKS[inner] = _probe(inner, _packed_probe)
    return _PACKS[inner]


def _recomputes(inner: Any) -> bool:
    """Whether layers run again in the backward pass, when attention knows of no pieces any more."""
    if not (inner.training and torch.is_grad_enabled()):
        return False
    return any(getattr(module, "gradient_checkpointing", False) for module in inner.modules())


def _slides(inner: Any, longest: int) -> bool:
    """Whether a sliding window is shorter than what is to be read."""
    window = getattr(inner.config.get_text_config(), "sliding_window", None)
    return window is not None and longest > window


# Two short answers behind one prompt, and before them one behind another that begins alike.
_PROBE = (((0, 1, 2), (3, 4)), ((0, 1, 2), (5, 3)))
_BEFORE = ((0, 1, 1), (2, 1))


def _shared_probe(inner: Any) -> Tensor:
    """Hidden states of both answers in one row, shape [7, width]."""
    return _states(inner, Layout(_shared_inputs(inner, _PROBE, [[0, 1]], 7), [], []))[0]


def _packed_probe(inner: Any) -> Tensor:
    """The same from an unpadded row with pieces of all kinds: a first one, and such as continue one or two."""
    layout = _packed([_BEFORE, *_PROBE], worth=1)
    _, first, second = layout.columns
    return _states(inner, layout)[0, np.concatenate((first, second[3:]))]


def _states(inner: Any, layout: Layout) -> Tensor:
    return layout.states(inner, getattr(inner, inner.base_model_prefix)).float()


def _probe(inner: Any, together: Callable[[Any], Tensor]) -> bool:
    """Compare hidden states of two short answers that are read together with those of each alone."""
    training = inner.training
    inner.eval()
    try:
        with torch.no_grad():
            found = together(inner)
            first, second = _states(inner, Layout(_plain_inputs(inner, _PROBE, [[0], [1]], 5), [], []))
    except Exception:  # an architecture may object in any way to a mask or positions of this kind
        return False
    finally:
        inner.train(training)
    alone = torch.cat([first, second[3:]])
    exact = inner.dtype == torch.float32
    return bool((found - alone).norm() <= (1e-4 if exact else 0.05) * alone.norm())
