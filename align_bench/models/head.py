"""The head of a language model at chosen positions, in chunks, so that few logits exist at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Positions whose logits exist at once: 256 × 150,000 fp32 logits are 0.15 GB.
_HEAD_CHUNK = 256
# The same on a CPU under a frozen head, and how many tokens of the vocabulary at a time: 8 MB, which its caches hold.
_ON_A_CPU: tuple[int, int | None] = 1024, 2048


def head_logps(head: Any, hidden: Tensor, target: Tensor) -> Tensor:
    """Log-probability of each target after each hidden state, shape [positions]."""
    if type(head) is torch.nn.Linear and head.bias is None and not head.weight.requires_grad:
        result: Tensor = _FrozenHead.apply(hidden, head.weight, target)
        return result
    chunks = [
        checkpoint(_chunk_logps, head, states, targets, use_reentrant=False)
        for states, targets in zip(torch.split(hidden, _HEAD_CHUNK), torch.split(target, _HEAD_CHUNK), strict=True)
    ]
    return torch.cat(chunks)


def _chunk_logps(head: Any, hidden: Tensor, target: Tensor) -> Tensor:
    return log_softmax_at(head(hidden), target)


def log_softmax_at(logits: Tensor, target: Tensor) -> Tensor:
    logits = logits.float()
    return logits.gather(1, target[:, None]).squeeze(1) - logits.logsumexp(1)


@torch.no_grad()
def head_log_squares(head: Any, hidden: Tensor) -> Tensor:
    """`log Σ_v π(v)²` after each hidden state, shape [positions]."""
    return torch.cat([log_squares(head(states)) for states in torch.split(hidden, _HEAD_CHUNK)])


def log_squares(logits: Tensor) -> Tensor:
    """`log Σ_v π(v)²` at each position, shape [positions], no gradient."""
    logits = logits.detach().float()
    return (2 * logits).logsumexp(1) - 2 * logits.logsumexp(1)


class _FrozenHead(torch.autograd.Function):
    """`_chunk_logps` under frozen weights, in one pass over the vocabulary, some of its tokens at a time.

    ∂ log p(y) / ∂h = W_y − Σ_v p_v W_v needs the softmax that the forward pass has in hand, so that it is kept instead
    of the logits: [positions, width] instead of [positions, vocabulary].
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        logps = torch.empty(len(target), device=hidden.device)
        slope = torch.empty_like(hidden) if wanted else None
        positions, tokens = _at_once(hidden.device)
        for start in range(0, len(target), positions):
            here = slice(start, start + positions)
            logps[here], mean = _normalised(hidden[here], weight, target[here], tokens, wanted=wanted)
            if slope is not None and mean is not None:
                slope[here] = weight[target[here]] - mean
        ctx.save_for_backward(slope)
        return logps

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return (gradient[:, None] * slope).to(slope.dtype), None, None


def _at_once(device: torch.device) -> tuple[int, int | None]:
    """For how many positions, and how many tokens of the vocabulary, logits exist at once; None is all of them."""
    return _ON_A_CPU if device.type == "cpu" else (_HEAD_CHUNK, None)


def _normalised(
    hidden: Tensor, weight: Tensor, target: Tensor, tokens: int | None, *, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of the targets, and, where wanted, `Σ_v p_v W_v`.

    Sums are kept relative to the largest logit so far, as by Milakov and Gimelshein 2018 (arXiv:1805.02867): a CPU has
    the logits of few tokens in its caches, and those of all in memory.
    """
    step = tokens or len(weight)
    buffer = hidden.new_empty(len(target), step)
    sums: _Sums | None = None
    for start in range(0, len(weight), step):
        rows = weight[start : start + step]
        logits = torch.mm(hidden, rows.t(), out=buffer[:, : len(rows)]).float()
        place = target[:, None] - start
        chosen = logits.gather(1, place.clamp(0, len(rows) - 1))
        largest = logits.amax(1, keepdim=True)
        if sums is not None:
            chosen = torch.where((place >= 0) & (place < len(rows)), chosen, sums.chosen)
            largest = torch.maximum(largest, sums.largest)
        total = logits.sub_(largest).exp_().sum(1, keepdim=True)
        mean = torch.mm(logits.to(weight.dtype), rows).float() if wanted and sums is None else None
        if sums is not None:
            shrink = (sums.largest - largest).exp_()
            total += sums.total.mul_(shrink)
            if sums.mean is not None:
                mean = _added(sums.mean.mul_(shrink), logits, rows)
        sums = _Sums(largest, total, chosen, mean)
    assert sums is not None, "a vocabulary is not empty"
    logps = sums.chosen - sums.largest - sums.total.log()
    return logps.squeeze(1), None if sums.mean is None else sums.mean.div_(sums.total)


class _Sums(NamedTuple):
    """Of the vocabulary's tokens so far, at each position: shape [positions, 1], of `mean` [positions, width]."""

    largest: Tensor
    total: Tensor
    chosen: Tensor
    mean: Tensor | None


def _added(mean: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
    """The product of further tokens added, in fp32."""
    return mean.addmm_(logits, rows) if rows.dtype == mean.dtype else mean.add_(torch.mm(logits.to(rows.dtype), rows))
