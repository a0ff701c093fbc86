"""The head of a language model at chosen positions, in chunks, so that few logits exist at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Positions whose logits exist at once: 256 × 150,000 fp32 logits are 0.15 GB.
_HEAD_CHUNK = 256


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
    """`_chunk_logps` under frozen weights, in one pass over the vocabulary and one buffer.

    ∂ log p(y) / ∂h = W_y − Σ_v p_v W_v needs the softmax that the forward pass has in hand, so that it is kept instead
    of the logits: [positions, width] instead of [positions, vocabulary].
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        logps = torch.empty(len(target), device=hidden.device)
        slope = torch.empty_like(hidden) if wanted else None
        buffer = hidden.new_empty(min(_HEAD_CHUNK, len(target)), len(weight))
        for start in range(0, len(target), _HEAD_CHUNK):
            here = slice(start, start + _HEAD_CHUNK)
            states, targets = hidden[here], target[here]
            logits = torch.mm(states, weight.t(), out=buffer[: len(targets)]).float()
            logits -= logits.amax(1, keepdim=True)
            chosen = logits.gather(1, targets[:, None]).squeeze(1)
            total = logits.exp_().sum(1)
            logps[here] = chosen - total.log()
            if slope is not None:
                mean = torch.mm(logits.div_(total[:, None]).to(weight.dtype), weight)
                slope[here] = weight[targets] - mean
        ctx.save_for_backward(slope)
        return logps

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return (gradient[:, None] * slope).to(slope.dtype), None, None
