"""LoRA's linear layers in one step: the products of peft's own with fewer passes over the activations."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor


def fuse(model: Any) -> Any:
    """Let every plain linear layer under an adapter compute in one step; others stay as peft made them.

    Args:
        model: a peft model with LoRA adapters; changed in place. What it saves and loads stays the same.
    """
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is torch.nn.Linear:
            module.__class__ = _FusedLinear
    return model


class _FusedLinear(Linear):  # type: ignore[misc]
    """peft's layer; where one adapter is active and nothing special is asked for, `_LowRank` computes it."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """`x Wᵀ + b + s · x Aᵀ Bᵀ`, shape [..., width]."""
        name = self._plain_adapter(x)
        if name is None or args or kwargs:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        weight, bias = self.base_layer.weight, self.base_layer.bias
        low, high = self.lora_A[name].weight, self.lora_B[name].weight
        fused: Tensor = _LowRank.apply(x, weight, bias, low, high, self.scaling[name])  # type: ignore[no-untyped-call]
        return fused

    def _plain_adapter(self, x: Tensor) -> str | None:
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name: str = self.active_adapters[0]
        known = name in self.lora_A and name not in self.lora_variant and not self.lora_bias[name]
        if not known or self.base_layer.weight.requires_grad or x.dtype != self.base_layer.weight.dtype:
            return None
        drops = self.training and not isinstance(self.lora_dropout[name], torch.nn.Identity)
        return None if drops else name


class _LowRank(torch.autograd.Function):
    """A frozen linear layer plus its low-rank update.

    The factors are kept in fp32 and multiplied in the activations' type, as under mixed precision; each sum, and the
    scale, go into the product that ends it.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, low: Tensor, high: Tensor, scale: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        down, up = low.to(x.dtype), high.to(x.dtype)
        narrow = rows @ down.t()
        result = torch.nn.functional.linear(rows, weight, bias)
        torch.addmm(result, narrow, up.t(), alpha=scale, out=result)
        ctx.save_for_backward(rows, narrow, weight, down, up)
        ctx.scale, ctx.shape, ctx.kept = scale, x.shape, low.dtype
        return result.view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, narrow, weight, down, up = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        through = gradient @ up
        below = low = high = None
        if ctx.needs_input_grad[0]:
            below = gradient @ weight
            below = torch.addmm(below, through, down, alpha=ctx.scale, out=below).view(ctx.shape)
        if ctx.needs_input_grad[3]:
            low = _scaled(through.t(), rows, ctx.scale).to(ctx.kept)
        if ctx.needs_input_grad[4]:
            high = _scaled(gradient.t(), narrow, ctx.scale).to(ctx.kept)
        return below, None, None, low, high, None


def _scaled(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """`scale · left @ right` in one step."""
    return torch.addmm(left.new_empty(()), left, right, beta=0, alpha=scale)
