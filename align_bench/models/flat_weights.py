"""Weights that learn as views of one buffer, so that the host starts one operator for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

import torch
from torch import Tensor


class FlatWeights:
    """Weights of one type on one device, one behind the other in memory.

    An optimizer that is given the buffer takes the step that it would take with each weight by itself, but for those
    without a gradient, which have one of 0.

    Attributes:
        buffer: a parameter, shape [numbers].
        weights: views of it, in order.

    Args:
        weights: parameters, whose data move into the buffer.
    """

    def __init__(self, weights: Sequence[torch.nn.Parameter]) -> None:
        self.weights = tuple(weights)
        self.buffer = torch.nn.Parameter(torch.cat([weight.detach().flatten() for weight in self.weights]))
        self._starts = list(accumulate((weight.numel() for weight in self.weights), initial=0))
        for weight, part in zip(self.weights, self._parts(self.buffer.detach()), strict=True):
            weight.data = part.view_as(weight)

    def _parts(self, line: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = line.split([weight.numel() for weight in self.weights])
        return parts

    def place(self, weights: Sequence[Tensor]) -> int | None:
        """Where in the buffer these weights begin; None where they are not some of its own, side by side."""
        first = next((number for number, weight in enumerate(self.weights) if weights and weight is weights[0]), None)
        if first is None:
            return None
        own = self.weights[first : first + len(weights)]
        same = len(own) == len(weights) and all(one is other for one, other in zip(own, weights, strict=True))
        return self._starts[first] if same else None

    def gather(self) -> None:
        """Add the gradients of the weights, which are left without, to that of the buffer."""
        known = [weight.grad for weight in self.weights]
        if all(gradient is None for gradient in known):
            return
        if self.buffer.grad is None:
            some = [torch.zeros_like(one) if it is None else it for one, it in zip(self.weights, known, strict=True)]
            self.buffer.grad = torch.cat([gradient.flatten() for gradient in some])
        else:
            for part, gradient in zip(self._parts(self.buffer.grad), known, strict=True):
                if gradient is not None:
                    part.add_(gradient.flatten())
        for weight in self.weights:
            weight.grad = None

    def forget(self) -> None:
        """Leave buffer and weights without a gradient."""
        for weight in (self.buffer, *self.weights):
            weight.grad = None


def flattened(weights: Iterable[torch.nn.Parameter]) -> list[FlatWeights]:
    """These weights, in their order, as few buffers as their types and devices allow."""
    alike: dict[tuple[torch.dtype, torch.device], list[torch.nn.Parameter]] = {}
    for weight in weights:
        alike.setdefault((weight.dtype, weight.device), []).append(weight)
    return [FlatWeights(several) for several in alike.values()]
