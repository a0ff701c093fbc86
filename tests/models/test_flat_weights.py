"""Weights in one buffer learn as they would one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from align_bench.models.flat_weights import FlatWeights, flattened

SHAPES = [(4, 3), (5,), (2, 7), (1, 1)]


def weights() -> list[Parameter]:
    torch.manual_seed(0)
    return [Parameter(torch.randn(shape)) for shape in SHAPES]


def loss(weights: Sequence[Tensor], step: int) -> Tensor:
    return torch.stack([(weight * (place + step + 1)).sin().sum() for place, weight in enumerate(weights)]).sum()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_takes_the_steps_of_each_weight(decay: float) -> None:
    plain, moved = weights(), weights()
    (flat,) = flattened(moved)
    one_by_one = torch.optim.AdamW(plain, lr=0.1, weight_decay=decay, fused=True)
    together = torch.optim.AdamW([flat.buffer], lr=0.1, weight_decay=decay, fused=True)
    for step in range(5):
        for _ in range(2):  # gradients of several passes add up
            loss(plain, step).backward()
            loss(moved, step).backward()
            flat.gather()
        norm = torch.nn.utils.clip_grad_norm_(plain, 1.0)
        assert torch.allclose(torch.nn.utils.clip_grad_norm_([flat.buffer], 1.0), norm)
        one_by_one.step()
        together.step()
        one_by_one.zero_grad()
        together.zero_grad()
        for one, other in zip(plain, moved, strict=True):
            assert torch.allclose(one, other, rtol=1e-5)
    assert not torch.allclose(plain[0], weights()[0], rtol=0.1)


def test_the_weights_are_views_with_the_numbers_that_they_had() -> None:
    moved = weights()
    flat = FlatWeights(moved)
    assert all(torch.equal(one, other) for one, other in zip(moved, weights(), strict=True))
    with torch.no_grad():
        flat.buffer.mul_(2)
    assert all(torch.equal(one, 2 * other) for one, other in zip(moved, weights(), strict=True))


def test_a_weight_without_a_gradient_has_one_of_zero() -> None:
    moved = weights()
    flat = FlatWeights(moved)
    flat.gather()
    assert flat.buffer.grad is None
    (3 * moved[1]).sum().backward()
    flat.gather()
    assert flat.buffer.grad is not None
    assert flat.buffer.grad.tolist() == [0.0] * 12 + [3.0] * 5 + [0.0] * 15
    assert all(weight.grad is None for weight in moved)
    (2 * moved[2]).sum().backward()  # onto what the buffer has
    flat.gather()
    assert flat.buffer.grad.tolist() == [0.0] * 12 + [3.0] * 5 + [2.0] * 14 + [0.0]
    moved[0].sum().backward()
    flat.forget()
    flat.gather()
    assert flat.buffer.grad is None


def test_a_place_is_that_of_weights_side_by_side() -> None:
    moved = weights()
    flat = FlatWeights(moved)
    assert flat.place(moved) == flat.place(moved[:2]) == 0
    assert flat.place(moved[1:3]) == 12
    assert flat.place(moved[3:]) == 31
    assert flat.place([]) is None
    assert flat.place([moved[0], moved[2]]) is None
    assert flat.place([*moved[2:], weights()[0]]) is None
    assert flat.place(weights()) is None


def test_each_type_has_a_buffer() -> None:
    moved = [Parameter(torch.ones(2)), Parameter(torch.ones(3, dtype=torch.bfloat16)), Parameter(torch.ones(4))]
    found = flattened(moved)
    assert [one.buffer.dtype for one in found] == [torch.float32, torch.bfloat16]
    assert [len(one.buffer) for one in found] == [6, 3]
    assert flattened([]) == []
