"""Attention of pieces against SDPA over the whole row under a mask."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from align_bench.models.packed_attention import _NOW, Piece, _attend, attending

PIECES = [Piece(5), Piece(1), Piece(70, ((0, 3),)), Piece(40, ((0, 3), (2, 60))), Piece(2, ((1, 1),)), Piece(33)]
CONFIG = SimpleNamespace(_attn_implementation="sdpa")


def visible() -> Tensor:
    """What each token of the row sees, token by token."""
    owners = [(number, place) for number, piece in enumerate(PIECES) for place in range(piece.length)]
    rows = []
    for number, place in owners:
        seen = {(number, earlier) for earlier in range(place + 1)}
        seen |= {(piece, earlier) for piece, tokens in PIECES[number].before for earlier in range(tokens)}
        rows.append([owner in seen for owner in owners])
    return torch.tensor(rows)


def states(heads: int, keys: int, dtype: torch.dtype, value_width: int = 16) -> list[Tensor]:
    row, random = sum(piece.length for piece in PIECES), torch.Generator().manual_seed(0)
    shapes = [(1, row, heads, 16), (1, row, keys, 16), (1, row, keys, value_width)]
    return [torch.randn(shape, generator=random).to(dtype).requires_grad_() for shape in shapes]


def piecewise(*given: Tensor, **settings: Any) -> Tensor:
    query, key, value = (one.transpose(1, 2) for one in given)
    with attending(CONFIG, PIECES):
        found, _ = _attend(None, query, key, value, None, scaling=0.3, **settings)
    return found


def naive(*given: Tensor) -> Tensor:
    query, key, value = (one.transpose(1, 2) for one in given)
    key, value = (one.repeat_interleave(query.shape[1] // key.shape[1], 1) for one in (key, value))
    return scaled_dot_product_attention(query, key, value, attn_mask=visible(), scale=0.3).transpose(1, 2)


def with_gradients(attention: Callable[..., Tensor], given: list[Tensor]) -> list[Tensor]:
    found = attention(*given)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(found.dtype)
    return [found, *torch.autograd.grad((found * weights).sum(), given)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-6), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize(("heads", "keys"), [(4, 4), (6, 2), (3, 1)])
def test_pieces_see_what_the_mask_shows(heads: int, keys: int, dtype: torch.dtype, tolerance: float) -> None:
    given = states(heads, keys, dtype)
    exact = [one.detach().double().requires_grad_() for one in given]
    for found, expected in zip(with_gradients(piecewise, given), with_gradients(naive, exact), strict=True):
        assert found.dtype == dtype
        assert (found.double() - expected).norm() <= tolerance * expected.norm()
    assert not _NOW
    assert CONFIG._attn_implementation == "sdpa"


@pytest.mark.parametrize(("width", "settings"), [(16, {"dropout": 1e-12}), (8, {})])
def test_what_the_kernel_cannot_do_goes_under_a_mask(width: int, settings: dict[str, float]) -> None:
    given = states(6, 2, torch.float64, width)
    for found, expected in zip(
        with_gradients(lambda *one: piecewise(*one, **settings), given), with_gradients(naive, given), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_a_gradient_may_be_wanted_of_some_states_alone() -> None:
    query, key, value = states(6, 2, torch.float64)
    expected = torch.autograd.grad(naive(query, key, value).square().sum(), value)
    (found,) = torch.autograd.grad(piecewise(query.detach(), key.detach(), value).square().sum(), value)
    torch.testing.assert_close(found, expected[0])


def test_the_backward_pass_keeps_no_copy_of_what_heads_or_pieces_share() -> None:
    given = states(6, 2, torch.float32)
    kept: dict[int, int] = {}

    def note(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        found = piecewise(*given)
    logarithms = 4 * given[0][..., 0].numel()
    assert sum(kept.values()) == sum(one.untyped_storage().nbytes() for one in (*given, found)) + logarithms
