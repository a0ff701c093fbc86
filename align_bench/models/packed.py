"""All sequences of a batch in one unpadded row: attention runs piece by piece, all else over the whole row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

_NAME = "align_bench_packed"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the row: a prompt with its first answer, or a further answer to a prompt that stands before it.

    Attributes:
        length: its tokens.
        head: number of the piece that begins with its prompt; None for one that has its own.
        prompt: tokens of that prompt.
        mask: what a further answer may see of its prompt and itself, additive, shape [1, 1, length, prompt + length].
    """

    length: int
    head: int | None = None
    prompt: int = 0
    mask: Tensor | None = None


def further(length: int, head: int, prompt: int, dtype: torch.dtype) -> Piece:
    """A further answer of `length` tokens to the prompt of the piece `head`: causal, and open to all of the prompt."""
    hidden = torch.full((length, prompt + length), torch.finfo(dtype).min, dtype=dtype)
    return Piece(length, head, prompt, hidden.triu(prompt + 1)[None, None])


@contextmanager
def attending(config: Any, pieces: Sequence[Piece]) -> Iterator[None]:
    """Within it, attention of models with this configuration keeps to the pieces of the one row that they read."""
    usual, config._attn_implementation = config._attn_implementation, _NAME
    _NOW.append(pieces)
    try:
        yield
    finally:
        _NOW.pop()
        config._attn_implementation = usual


_NOW: list[Sequence[Piece]] = []


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
) -> tuple[Tensor, None]:
    """What transformers calls for attention: from [1, heads, row, width] tensors to one of [1, row, heads, width]."""
    pieces = _NOW[-1]
    lengths = [piece.length for piece in pieces]
    queries, keys, values = (torch.split(states, lengths, dim=2) for states in (query, key, value))
    found = []
    for number, piece in enumerate(pieces):
        own_keys, own_values = keys[number], values[number]
        if piece.head is not None:
            own_keys = torch.cat([keys[piece.head][:, :, : piece.prompt], own_keys], dim=2)
            own_values = torch.cat([values[piece.head][:, :, : piece.prompt], own_values], dim=2)
        found.append(sdpa_attention_forward(module, queries[number], own_keys, own_values, piece.mask, **more)[0])
    return torch.cat(found, dim=1), None


AttentionInterface.register(_NAME, _attend)
