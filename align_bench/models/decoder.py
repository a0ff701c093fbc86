"""Decoder layers of the Llama family with few passes over the activations, of which the backward pass keeps fewer."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import silu
from transformers import DynamicCache
from transformers.activations import SiLUActivation
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from align_bench.models.lora import Factors, affine, factors, intercepted, project, pull_back, trained
from align_bench.models.packed_attention import PACKED

if TYPE_CHECKING:
    from align_bench.models.lora import Affine

_ATTENTIONS = frozenset({"sdpa", PACKED})
# The name of a layer's cache argument; releases of transformers differ.
_CACHE = "cache" if "cache" in inspect.signature(LlamaDecoderLayer.forward).parameters else "past_key_values"


def fuse_layers(model: Any) -> Any:
    """Let decoder layers of the families known here compute in few steps; others stay as transformers made them.

    Args:
        model: a transformers model, changed in place; adapters may be added later.
    """
    for module in model.modules():
        if type(module) in _FUSED:
            module.__class__ = _FUSED[type(module)]
    return model


class _FusedLayer:
    """A layer that computes `x + o(attention(norm x))`, then `x + down(silu(gate(norm x)) · up(norm x))`.

    Where a layer is more than that, or `unfused` is asked for, transformers' own code runs.
    """

    self_attn: Any
    mlp: Any
    input_layernorm: Any
    post_attention_layernorm: Any

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Hidden states of shape [batch, time, width] to the same."""
        layers = self._layers(hidden_states) if not args and _usual(kwargs) else None
        if layers is None:
            result: Tensor = super().forward(hidden_states, *args, **kwargs)  # type: ignore[misc]
            return result
        before, after = self.input_layernorm, self.post_attention_layernorm
        rows = hidden_states.reshape(-1, hidden_states.shape[-1])
        states = _apply(_NormedProjections, (rows, before.weight, before.variance_epsilon), layers[:3])
        found = self._attend(states, hidden_states.shape[:-1], **kwargs)
        rows = _apply(_Added, (rows, found), layers[3:4])
        rows = _apply(_GatedUnit, (rows, after.weight, after.variance_epsilon), layers[4:])
        fused: Tensor = rows.view(hidden_states.shape)
        return fused

    def _attend(
        self, states: Sequence[Tensor], shape: Sequence[int], *, position_embeddings: tuple[Tensor, Tensor], **more: Any
    ) -> Tensor:
        """Attention's output before its projection, shape [batch · time, heads · width]."""
        attention = self.self_attn
        query, key, value = (found.view(*shape, -1, attention.head_dim) for found in states)
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        query, key = _Rotated.apply(query, key, *position_embeddings)  # type: ignore[no-untyped-call]
        query, key, value = (heads.transpose(1, 2) for heads in (query, key, value))
        mask, cache = more.pop("attention_mask", None), more.pop(_CACHE, None)
        if cache is not None:
            key, value = cache.update(key, value, attention.layer_idx)
        window = {"sliding_window": attention.sliding_window} if hasattr(attention, "sliding_window") else {}
        attend = ALL_ATTENTION_FUNCTIONS[attention.config._attn_implementation]
        found, _ = attend(attention, query, key, value, mask, dropout=0.0, scaling=attention.scaling, **window, **more)
        attended: Tensor = found.reshape(-1, found.shape[-2] * found.shape[-1])
        return attended

    def _layers(self, hidden_states: Tensor) -> list[Affine] | None:
        """The seven products of the layer, q, k, v, o, gate, up, down, if it is nothing more than them."""
        attention, mlp, dtype = self.self_attn, self.mlp, hidden_states.dtype
        norms = (self.input_layernorm, self.post_attention_layernorm)
        usual = (
            attention.config._attn_implementation in _ATTENTIONS
            and isinstance(mlp.act_fn, (torch.nn.SiLU, SiLUActivation))
            and not (self.training and attention.attention_dropout)  # type: ignore[attr-defined]
            and not any(norm.weight.requires_grad or norm.weight.dtype != dtype for norm in norms)
            and not any(map(intercepted, (*norms, mlp)))
        )
        if not usual:
            return None
        modules = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        found = [affine(module, dtype) for module in (*modules, mlp.gate_proj, mlp.up_proj, mlp.down_proj)]
        return None if None in found else found  # type: ignore[return-value]


class FusedLlamaDecoderLayer(_FusedLayer, LlamaDecoderLayer):  # type: ignore[misc]
    """Llama's."""


class FusedMistralDecoderLayer(_FusedLayer, MistralDecoderLayer):  # type: ignore[misc]
    """Mistral's."""


class FusedQwen2DecoderLayer(_FusedLayer, Qwen2DecoderLayer):  # type: ignore[misc]
    """Qwen2's."""


class FusedQwen3DecoderLayer(_FusedLayer, Qwen3DecoderLayer):  # type: ignore[misc]
    """Qwen3's, with its norms of queries and keys."""


_FUSED: dict[type, type] = {
    LlamaDecoderLayer: FusedLlamaDecoderLayer,
    MistralDecoderLayer: FusedMistralDecoderLayer,
    Qwen2DecoderLayer: FusedQwen2DecoderLayer,
    Qwen3DecoderLayer: FusedQwen3DecoderLayer,
}


def _usual(arguments: dict[str, Any]) -> bool:
    """Whether what a layer is called with is what fused code knows: no cache, or one that only appends."""
    others = {"cache", "past_key_values"} - {_CACHE}
    cache = arguments.get(_CACHE)
    return (cache is None or isinstance(cache, DynamicCache)) and all(arguments.get(name) is None for name in others)


def _apply(function: Any, inputs: Sequence[Any], layers: Sequence[Affine]) -> Any:
    return function.apply(*inputs, layers, *trained(layers))


def _normalise(states: Tensor, gain: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """RMSNorm of each row, and `1 / √(mean x² + ε)` in fp32, shape [rows, 1]."""
    length = torch.linalg.vector_norm(states, dim=1, keepdim=True, dtype=torch.float32)
    shrink = length.square_().div_(states.shape[1]).add_(epsilon).rsqrt_()
    return _normalised(states, gain, shrink), shrink


def _normalised(states: Tensor, gain: Tensor, shrink: Tensor) -> Tensor:
    return (states * shrink).to(states.dtype).mul_(gain)


def _normalise_back(gradient: Tensor, states: Tensor, gain: Tensor, shrink: Tensor) -> Tensor:
    """`∂x = s − x c² mean(s x)`, where `s = c g w` and `c` is `shrink`; the gradient's own memory is used up."""
    slope = gradient.mul_(gain) * shrink  # in fp32, as `shrink` is
    inner = (slope * states).sum(1, keepdim=True).div_(states.shape[1])
    return slope.addcmul_(states, inner.mul_(shrink.square()), value=-1).to(states.dtype)


class _NormedProjections(torch.autograd.Function):
    """Linear layers of an RMSNorm's output, which is computed again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, gain: Tensor, epsilon: float, layers: Sequence[Affine], *_: Tensor | None
    ) -> tuple[Tensor, ...]:
        cast = factors(layers)
        normed, shrink = _normalise(states, gain, epsilon)
        outputs, narrow = project(normed, layers, cast)
        ctx.save_for_backward(states, gain, shrink, narrow, cast.low, *cast.high)
        ctx.layers = layers
        return tuple(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states, gain, shrink, narrow, low, *high = ctx.saved_tensors
        normed = _normalised(states, gain, shrink)
        cast, wanted = Factors(low, tuple(high)), ctx.needs_input_grad[0]
        below, slopes = pull_back(gradients, normed, narrow, ctx.layers, cast, wanted=wanted)
        if below is not None:
            below = _normalise_back(below, states, gain, shrink)
        return below, None, None, None, *slopes


class _Added(torch.autograd.Function):
    """A residual plus a linear layer of other states."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, states: Tensor, layers: Sequence[Affine], *_: Tensor | None) -> Tensor:
        cast = factors(layers)
        (output,), narrow = project(states, layers, cast, residual)
        ctx.save_for_backward(states, narrow, cast.low, *cast.high)
        ctx.layers = layers
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        states, narrow, low, *high = ctx.saved_tensors
        cast, wanted = Factors(low, tuple(high)), ctx.needs_input_grad[1]
        below, slopes = pull_back([gradient], states, narrow, ctx.layers, cast, wanted=wanted)
        return gradient, below, None, *slopes


class _GatedUnit(torch.autograd.Function):
    """`x + down(silu(gate(n)) · up(n))` with `n = norm(x)`; kept are `x`, `gate(n)` and `up(n)`."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, gain: Tensor, epsilon: float, layers: Sequence[Affine], *_: Tensor | None
    ) -> Tensor:
        wide, down = factors(layers[:2]), factors(layers[2:])
        normed, shrink = _normalise(states, gain, epsilon)
        (gate, up), narrow = project(normed, layers[:2], wide)
        (output,), through = project(silu(gate).mul_(up), layers[2:], down, states)
        ctx.save_for_backward(
            states, gain, shrink, narrow, gate, up, through, wide.low, *wide.high, down.low, *down.high
        )
        ctx.layers = layers
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        states, gain, shrink, narrow, gate, up, through, *cast = ctx.saved_tensors
        wide, down = Factors(cast[0], tuple(cast[1:3])), Factors(cast[3], tuple(cast[4:]))
        opened = silu(gate)
        product, last = pull_back([gradient], opened * up, through, ctx.layers[2:], down)
        assert product is not None
        above = opened.mul_(product)
        inside = torch.ops.aten.silu_backward(product.mul_(up), gate)
        normed = _normalised(states, gain, shrink)
        wanted = ctx.needs_input_grad[0]
        below, slopes = pull_back([inside, above], normed, narrow, ctx.layers[:2], wide, wanted=wanted)
        if below is not None:
            below = _normalise_back(below, states, gain, shrink).add_(gradient)
        return below, None, None, None, *slopes, *last


class _Rotated(torch.autograd.Function):
    """Rotary position embedding of queries and keys, shape [batch, time, heads, width]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cosine, sine)
        cosine, (first, second) = cosine[:, :, None], sine[:, :, None].chunk(2, -1)
        return _rotate(query, cosine, first, second, 1), _rotate(key, cosine, first, second, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cosine, sine = (angles[:, :, None] for angles in ctx.saved_tensors)
        first, second = sine.chunk(2, -1)
        # The transpose takes each half's sine from where the other half's stood.
        return *(_rotate(gradient, cosine, second, first, -1) for gradient in gradients), None, None


def _rotate(heads: Tensor, cosine: Tensor, first: Tensor, second: Tensor, sign: int) -> Tensor:
    """`x cos ± (−x₂, x₁) sin` for halves x₁, x₂ of the width; the sines of both halves stand alone."""
    half = heads.shape[-1] // 2
    turned = torch.mul(heads, cosine)
    turned[..., :half].addcmul_(heads[..., half:], first, value=-sign)
    turned[..., half:].addcmul_(heads[..., :half], second, value=sign)
    return turned
