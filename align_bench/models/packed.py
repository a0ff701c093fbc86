"""All sequences of a batch in one unpadded row: attention runs piece by piece, all else over the whole row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

PACKED = "align_bench_packed"


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
    usual, config._attn_implementation = config._attn_implementation, PACKED
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
        if piece.mask is None:
            found.append(sdpa_attention_forward(module, queries[number], own_keys, own_values, None, **more)[0])
        else:
            found.append(_masked(queries[number], own_keys, own_values, piece.mask, **more))
    return torch.cat(found, dim=1), None


def _masked(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float | None, dropout: float = 0.0, **_: Any
) -> Tensor:
    """Attention under a mask, heads that share keys reading the same ones, where transformers would copy them."""
    shared = key.shape[1] < query.shape[1]
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling, enable_gqa=shared
    ).transpose(1, 2)


AttentionInterface.register(PACKED, _attend)
