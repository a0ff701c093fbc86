"""Floating-point operations that a model's passes need, counted from its shape.

A token that passes forward needs 2·m operations, m the weights of the decoder's matrices (adapters included); a
position that sees k others needs 4·k·(heads × width of a head) in each layer, for the scores and for the mean of the
values; a prediction needs 2·width·vocabulary. Backward, frozen matrices and the head need as much once more, for the
gradient of their input; trained ones (the adapters) and attention need twice as much.

These are the operations that the result needs: what sequences of a pass begin with in common once, no padding, no
position that a causal mask hides, the head at predicted positions only, nothing computed again. So a wasteful path is
seen as a low utilisation, not as more work. Embeddings, norms, activations and softmax count nothing; sliding windows,
and the gradient that the first layer's input does not need, are not taken off.

Source: Chowdhery et al. 2022, arXiv:2204.02311, appendix B (model FLOPs). Differs: a frozen base needs no gradient of
its weights (theirs is 3 × forward), and hidden positions of attention are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from align_bench.models.shared_prefixes import in_order

Sequences = Sequence[tuple[Sequence[int], Sequence[int]]]
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # such a token passes a part of the matrices


class Tally:
    """Operations of all passes while `counted` is open.

    Attributes:
        flops: their sum; None when something passed that cannot be counted.
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._unknown = False

    @property
    def flops(self) -> float | None:
        return None if self._unknown else self._sum

    def add(self, flops: float | None) -> None:
        """One more pass; None when it cannot be counted."""
        self._unknown |= flops is None
        self._sum += flops or 0.0


_OPEN: list[Tally] = []


@contextmanager
def counted() -> Iterator[Tally]:
    """Count the passes of every model meanwhile."""
    tally = Tally()
    _OPEN.append(tally)
    try:
        yield tally
    finally:
        _OPEN.remove(tally)


def uncounted() -> None:
    """Say that work is done, by a foreign trainer for example, that nothing here sees."""
    counted_elsewhere(None)


def counted_elsewhere(flops: float | None) -> None:
    """Count what other processes did of the same work; None where they could not count it."""
    for tally in _OPEN:
        tally.add(flops)


def passes(
    inner: Any, sequences: Sequences, *, predictions: int = 0, forward: int = 1, backward: int | None = None
) -> None:
    """Count passes of token rows through a model.

    Args:
        inner: the transformers model, with adapter layers in place.
        sequences: (prompt ids, answer ids) pairs.
        predictions: positions at which the vocabulary is projected.
        forward: how often they pass forward.
        backward: and backward; by default once where gradients are on.
    """
    if not _OPEN:
        return
    if backward is None:
        backward = int(torch.is_grad_enabled())
    work = _work(inner, sequences, predictions)
    needed = None if work is None else forward * work.forward + backward * work.backward
    for tally in _OPEN:
        tally.add(needed)


@dataclass(frozen=True, slots=True)
class Work:
    """Operations of one pass forward, by what needs them; `trained` is the adapters' part of `matrices`."""

    matrices: float
    trained: float
    attention: float
    head: float

    @property
    def forward(self) -> float:
        return self.matrices + self.attention + self.head

    @property
    def backward(self) -> float:
        return self.matrices + self.trained + 2 * self.attention + self.head


def _work(inner: Any, sequences: Sequences, predictions: int) -> Work | None:
    config = inner.config.get_text_config()
    if any(getattr(config, name, None) for name in _EXPERTS):
        return None
    tokens = visible = 0
    whole = [(*prompt, *answer) for prompt, answer in sequences]
    for number, shared in in_order(whole):
        length = len(whole[number])
        tokens += length - shared
        visible += length * (length + 1) // 2 - shared * (shared + 1) // 2
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    all_weights, trained_weights = _matrices(getattr(inner, inner.base_model_prefix))
    return Work(
        matrices=2.0 * tokens * all_weights,
        trained=2.0 * tokens * trained_weights,
        attention=4.0 * visible * heads * width * config.num_hidden_layers,
        head=2.0 * predictions * inner.get_input_embeddings().weight.numel() if predictions else 0.0,
    )


def _matrices(decoder: Any) -> tuple[int, int]:
    """Weights of the decoder's matrices, all of them and the trained ones; 4-bit ones count unpacked."""
    found = trained = 0
    for module in decoder.modules():
        if isinstance(module, torch.nn.Linear):
            size = module.in_features * module.out_features
        elif type(module).__name__ == "Conv1D":  # GPT-2's name for a transposed linear layer
            size = module.weight.numel()
        else:
            continue
        found += size
        trained += size if module.weight.requires_grad else 0
    return found, trained
