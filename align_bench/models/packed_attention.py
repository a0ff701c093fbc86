"""All sequences of a batch in one unpadded row: attention runs piece by piece, all else over the whole row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

PACKED = "align_bench_packed"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the row, which sees itself causally and all of what it continues.

    Attributes:
        length: its tokens.
        before: what it continues, in order: (number of an earlier piece, how many of its first tokens).
    """

    length: int
    before: tuple[tuple[int, int], ...] = ()


@contextmanager
def attending(config: Any, pieces: Sequence[Piece]) -> Iterator[None]:
    """Within it, attention of models with this configuration keeps to the pieces of the one row that they read."""
    usual, config._attn_implementation = config._attn_implementation, PACKED
    _NOW.append(_spans(pieces))
    try:
        yield
    finally:
        _NOW.pop()
        config._attn_implementation = usual


# Of each piece its columns, and those of what it continues.
Spans = Sequence[tuple[slice, Sequence[slice]]]
_NOW: list[Spans] = []


def _spans(pieces: Sequence[Piece]) -> Spans:
    starts = list(accumulate((piece.length for piece in pieces), initial=0))
    return [
        (slice(starts[number], starts[number + 1]), [slice(starts[one], starts[one] + n) for one, n in piece.before])
        for number, piece in enumerate(pieces)
    ]


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers calls for attention: from [1, heads, row, width] tensors to one of [1, row, heads, width]."""
    if dropout or query.shape[-1] != value.shape[-1]:
        seen, shared = _seen(_NOW[-1], query.shape[2]), key.shape[1] < query.shape[1]
        found = scaled_dot_product_attention(
            query, key, value, seen, dropout_p=dropout, scale=scaling, enable_gqa=shared
        )
        return found.transpose(1, 2), None
    return _Attention.apply(query, key, value, scaling, _NOW[-1]), None  # type: ignore[no-untyped-call]


def _seen(spans: Spans, row: int) -> Tensor:
    """Which columns each column of the row sees, shape [row, row]."""
    seen = torch.zeros(row, row, dtype=torch.bool)
    for own, before in spans:
        for columns in (own, *before):
            seen[own, columns] = True
    return seen.tril()


# What SDPA runs on a CPU, which also returns the logarithms of the softmax's denominators.
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class _Attention(torch.autograd.Function):
    """Attention of pieces, without copies of what heads or pieces share.

    What a piece finds in itself and in what it continues is weighed by the denominators of both; a part's gradient
    needs no more than that of the whole (Liu et al. 2023, arXiv:2310.01889, do so with parts on several devices).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, spans: Spans) -> Tensor:
        _, heads, row, width = query.shape
        output = query.new_empty(1, row, heads, width)
        groups = key.shape[1]
        queries, outputs = _grouped(query, groups), _grouped(output.transpose(1, 2), groups)
        logs = query.new_empty(queries.shape[:-1], dtype=torch.promote_types(query.dtype, torch.float32))
        for own, before in spans:
            asked = queries[:, :, own]
            found, log = _forward(asked, *_read(key, value, [own], heads), 0.0, True, scale=scaling)
            if before:
                other, more = _forward(asked, *_read(key, value, before, heads), 0.0, False, scale=scaling)
                share = torch.sigmoid(more - log)[..., None]
                found = (found * (1 - share)).addcmul_(other, share)
                log = torch.logaddexp(log, more)
            outputs[:, :, own], logs[:, :, own] = found, log
        ctx.save_for_backward(query, key, value, output, logs)
        ctx.scaling, ctx.spans = scaling, spans
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, logs = ctx.saved_tensors
        heads, groups = query.shape[1], key.shape[1]
        query_slope, key_slope, value_slope = (
            torch.empty_like(states.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
            for states in (query, key, value)
        )
        above, queries, outputs, slopes = (
            _grouped(states, groups)
            for states in (gradient.transpose(1, 2), query, output.transpose(1, 2), query_slope)
        )
        for own, before in ctx.spans:
            for columns, causal in ([own], True), (before, False):
                if not columns:
                    continue
                read, answer = _read(key, value, columns, heads), (outputs[:, :, own], logs[:, :, own])
                of_query, *others = _backward(
                    above[:, :, own], queries[:, :, own], *read, *answer, 0.0, causal, scale=ctx.scaling
                )
                put = Tensor.copy_ if causal else Tensor.add_  # its own columns come first, and are no other piece's
                put(slopes[:, :, own], of_query)
                lengths = [part.stop - part.start for part in columns]
                for slope, found in zip((key_slope, value_slope), others, strict=True):
                    for part, states in zip(columns, found.sum(1).split(lengths, dim=1), strict=True):
                        put(slope[0, :, part], states)
        return query_slope, key_slope, value_slope, None, None


def _grouped(states: Tensor, groups: int) -> Tensor:
    """Heads that share a key together, shape [groups, heads of each, row, width]."""
    return states[0].view(groups, -1, *states.shape[2:])


def _read(key: Tensor, value: Tensor, columns: Sequence[slice], heads: int) -> tuple[Tensor, Tensor]:
    """Keys and values in some columns, shape [groups, heads of each, columns, width]; a group's are one memory."""
    times = heads // key.shape[1]
    found = (
        states[0, :, columns[0]] if len(columns) == 1 else torch.cat([states[0, :, part] for part in columns], dim=1)
        for states in (key, value)
    )
    keys, values = (states[:, None].expand(-1, times, -1, -1) for states in found)
    return keys, values


AttentionInterface.register(PACKED, _attend)
