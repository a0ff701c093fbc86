"""LoRA's linear layers in one step: the products of peft's own with fewer passes over the activations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear
from torch import Tensor
from torch.nn.functional import linear

from align_bench.models.unfused import is_unfused


def fuse(model: Any) -> Any:
    """Let every plain linear layer under an adapter compute in one step; others stay as peft made them.

    Args:
        model: a peft model with LoRA adapters; changed in place. What it saves and loads stays the same.
    """
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is torch.nn.Linear:
            module.__class__ = FusedLinear
    return model


class Affine(NamedTuple):
    """`x Wᵀ + b + s · x Aᵀ Bᵀ`: a frozen linear layer, and its low-rank update where one is active.

    Attributes:
        weight: W, shape [out, in].
        bias: b, shape [out], or None.
        low: A, shape [r, in], or None; kept in fp32 here, in the activations' type by some of TRL's trainers.
        high: B, shape [out, r], of the same type, or None.
        scale: s.
    """

    weight: Tensor
    bias: Tensor | None
    low: Tensor | None = None
    high: Tensor | None = None
    scale: float = 0.0

    @property
    def rank(self) -> int:
        """r; 0 without an update."""
        return 0 if self.low is None else self.low.shape[0]


class FusedLinear(Linear):  # type: ignore[misc]
    """peft's layer; where one adapter is active and nothing special is asked for, `_Project` computes it."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """`x Wᵀ + b + s · x Aᵀ Bᵀ`, shape [..., width]."""
        layer = None if args or kwargs else affine(self, x.dtype)
        if layer is None or layer.low is None:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        rows = x.reshape(-1, x.shape[-1])
        fused: Tensor = _Project.apply(rows, layer, *trained([layer]))  # type: ignore[no-untyped-call]
        return fused.view(*x.shape[:-1], -1)


def affine(module: Any, dtype: torch.dtype) -> Affine | None:
    """What a linear layer computes on activations of this type, or None where it is more than an `Affine`."""
    base = module.base_layer if type(module) is FusedLinear else module
    if type(base) is not torch.nn.Linear or is_unfused() or intercepted(base):
        return None
    weight, bias = base.weight, base.bias
    if weight.requires_grad or (bias is not None and bias.requires_grad) or _casts(weight, dtype):
        return None
    if base is module or (module.disable_adapters and not module.merged):
        return Affine(weight, bias)
    if module.disable_adapters or module.merged or len(active := module.active_adapters) != 1:
        return None
    name: str = active[0]
    lows = module.lora_A
    if name not in lows or name in module.lora_variant or module.lora_bias[name]:
        return None
    if module.training and not isinstance(module.lora_dropout[name], torch.nn.Identity):
        return None
    low, high = lows[name], module.lora_B[name]
    if intercepted(module) or intercepted(low) or intercepted(high):
        return None
    return Affine(weight, bias, low.weight, high.weight, module.scaling[name])


def intercepted(module: torch.nn.Module) -> bool:
    """Whether something wants to see, or to replace, what this module computes: a hook, or a `forward` of its own."""
    own = vars(module)
    hooked = own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]
    return bool(hooked) or "forward" in own


def _casts(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether activations of this type would be cast before they meet the weight."""
    kind = weight.device.type
    return weight.dtype != dtype or (torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) != dtype)


def trained(layers: Sequence[Affine]) -> list[Tensor | None]:
    """Low and high of each layer, or None, in one line: autograd sees tensors only among a function's own arguments."""
    return [tensor for layer in layers for tensor in (layer.low, layer.high)]


class Factors(NamedTuple):
    """The low-rank factors of layers with one input, in the type that computes: what a backward pass needs of them.

    Attributes:
        low: all A below each other, shape [Σ r, in].
        high: each B, shape [out, r]; empty where there is no update.
    """

    low: Tensor
    high: tuple[Tensor, ...]


_STEADY: list[dict[tuple[int, ...], Factors]] = []


@contextmanager
def steady() -> Iterator[None]:
    """Within it no adapter changes, so that its factors are cast once for all passes."""
    _STEADY.append({})
    try:
        yield
    finally:
        _STEADY.pop()


def factors(layers: Sequence[Affine]) -> Factors:
    """Cast once for all layers; they share one input, so that their A are one product."""
    if not _STEADY:
        return _cast(layers)
    known, which = _STEADY[-1], tuple(id(one) for layer in layers for one in (layer.weight, layer.low))
    if which not in known:
        known[which] = _cast(layers)
    return known[which]


def _cast(layers: Sequence[Affine]) -> Factors:
    weight = layers[0].weight
    lows = [layer.low for layer in layers if layer.low is not None] or [weight.new_empty(0, weight.shape[1])]
    low = (torch.cat(lows) if len(lows) > 1 else lows[0]).to(weight.dtype)
    none = weight.new_empty(0)
    return Factors(low, tuple(none if layer.high is None else layer.high.to(weight.dtype) for layer in layers))


def project(
    rows: Tensor, layers: Sequence[Affine], factors: Factors, residual: Tensor | None = None
) -> tuple[list[Tensor], Tensor]:
    """Each layer's output, shape [rows, out], and `x Aᵀ` of all of them, shape [rows, Σ r].

    Args:
        rows: x, shape [rows, in].
        layers: layers with this input.
        factors: theirs.
        residual: what the output of the (only) layer is added to, shape [rows, out].
    """
    narrow = rows @ factors.low.t()
    outputs, start = [], 0
    for layer, high in zip(layers, factors.high, strict=True):
        if residual is None:
            output = linear(rows, layer.weight, layer.bias)
        else:
            output = torch.addmm(residual, rows, layer.weight.t())
            if layer.bias is not None:
                output += layer.bias
        if layer.rank:
            output.addmm_(narrow[:, start : start + layer.rank], high.t(), alpha=layer.scale)
        outputs.append(output)
        start += layer.rank
    return outputs, narrow


def pull_back(
    gradients: Sequence[Tensor],
    rows: Tensor,
    narrow: Tensor,
    layers: Sequence[Affine],
    factors: Factors,
    *,
    wanted: bool = True,
) -> tuple[Tensor | None, list[Tensor | None]]:
    """The backward pass of `project`.

    Args:
        gradients: of each layer's output, shape [rows, out].
        rows, narrow, layers, factors: as in, and from, `project`.
        wanted: whether the gradient of the rows is needed.

    Returns:
        That of the rows, shape [rows, in], or None; and that of low and high of each layer in one line, None where
        there is no update.
    """
    through, none = torch.empty_like(narrow), narrow.new_empty(())
    highs: list[Tensor | None] = []
    start = 0
    for gradient, layer, high in zip(gradients, layers, factors.high, strict=True):
        here, slope = slice(start, start + layer.rank), None
        if layer.high is not None:
            torch.addmm(none, gradient, high, beta=0, alpha=layer.scale, out=through[:, here])
            slope = torch.addmm(none, gradient.t(), narrow[:, here], beta=0, alpha=layer.scale).to(layer.high.dtype)
        highs.append(slope)
        start = here.stop
    kept_in = next((layer.low.dtype for layer in layers if layer.low is not None), rows.dtype)
    lows = torch.split((through.t() @ rows).to(kept_in), [layer.rank for layer in layers])
    slopes = [
        slope
        for low, high, layer in zip(lows, highs, layers, strict=True)
        for slope in (low if layer.rank else None, high)
    ]
    if not wanted:
        return None, slopes
    below = gradients[0] @ layers[0].weight
    for gradient, layer in zip(gradients[1:], layers[1:], strict=True):
        below.addmm_(gradient, layer.weight)
    return below.addmm_(through, factors.low), slopes


class _Project(torch.autograd.Function):
    """One layer by itself. The factors are kept in fp32 and multiplied in the activations' type."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, layer: Affine, *_: Tensor | None) -> Tensor:
        cast = factors([layer])
        (output,), narrow = project(rows, [layer], cast)
        ctx.save_for_backward(rows, narrow, cast.low, *cast.high)
        ctx.layer = layer
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, narrow, low, *high = ctx.saved_tensors
        cast, wanted = Factors(low, tuple(high)), ctx.needs_input_grad[0]
        below, slopes = pull_back([gradient], rows, narrow, [ctx.layer], cast, wanted=wanted)
        return below, None, *slopes
