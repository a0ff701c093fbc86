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
    """A stretch of the row, which sees itself causally and all of what it continues.

    Attributes:
        length: its tokens.
        before: what it continues, in order: (number of an earlier piece, how many of its first tokens).
        mask: what it may see of `before` and itself, additive, shape [1, 1, length, before + length]; None where
            causal attention over `before` and itself costs less.
    """

    length: int
    before: tuple[tuple[int, int], ...] = ()
    mask: Tensor | None = None


def continuing(length: int, before: Sequence[tuple[int, int]], dtype: torch.dtype) -> Piece:
    """A piece of `length` tokens that continues others."""
    seen = sum(tokens for _, tokens in before)
    # Causal attention does half of the square of their sum, masked attention all of its rectangle, with fewer copies.
    if length > seen:
        return Piece(length, tuple(before))
    hidden = torch.full((length, seen + length), torch.finfo(dtype).min, dtype=dtype)
    return Piece(length, tuple(before), hidden.triu(seen + 1)[None, None])


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
        seen_keys, seen_values = (_continued(states, number, piece) for states in (keys, values))
        if piece.mask is None:
            asked = _continued(queries, number, piece)
            causal, _ = sdpa_attention_forward(module, asked, seen_keys, seen_values, None, **more)
            found.append(causal[:, -piece.length :])
        else:
            found.append(_masked(queries[number], seen_keys, seen_values, piece.mask, **more))
    return torch.cat(found, dim=1), None


def _continued(states: Sequence[Tensor], number: int, piece: Piece) -> Tensor:
    """The states of a piece behind those that it continues, shape [1, heads, before + length, width]."""
    before = [states[earlier][:, :, :tokens] for earlier, tokens in piece.before]
    return torch.cat([*before, states[number]], dim=2) if before else states[number]


def _masked(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float | None, dropout: float = 0.0, **_: Any
) -> Tensor:
    """Attention under a mask, heads that share keys reading the same ones, where transformers would copy them."""
    shared = key.shape[1] < query.shape[1]
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling, enable_gqa=shared
    ).transpose(1, 2)


AttentionInterface.register(PACKED, _attend)
