"""Keys and values of the tokens that a model has read, in buffers that grow by blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_BLOCK = 64


def growing_cache(inner: Any) -> DynamicCache:
    """An empty cache for a transformers model; layers with a window keep transformers' own kind."""
    cache = DynamicCache(config=inner.config)
    cache.layers = [_GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def can_place(cache: DynamicCache) -> bool:
    """Whether all layers of an empty cache take rows that were read elsewhere."""
    return all(type(layer) is _GrowingLayer for layer in cache.layers)


def fixed_cache(cache: DynamicCache, room: int, slot: Tensor) -> DynamicCache:
    """A copy with room for so many tokens, into which one token at a time is written.

    Args:
        cache: what has been read, in layers that `can_place`, or in those of another such cache.
        room: tokens, those that have been read included.
        slot: where the next token goes, shape [1]; read when it comes.
    """
    fixed = DynamicCache()
    fixed.layers = [_FixedLayer(layer, room, slot) for layer in cache.layers]
    return fixed


class _FixedLayer(DynamicLayer):  # type: ignore[misc]
    """Attention sees all of the room; the mask says what is there."""

    def __init__(self, read: DynamicLayer, room: int, slot: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(read.keys, read.values)
        self.keys, self.values = (_roomier(states, room) for states in (read.keys, read.values))
        self._slot = slot

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add states of shape [rows, heads, 1, width]; returns those of the whole room."""
        self.keys.index_copy_(2, self._slot, key_states)
        self.values.index_copy_(2, self._slot, value_states)
        return self.keys, self.values


def _roomier(states: Tensor, room: int) -> Tensor:
    """States of shape [rows, heads, tokens, width] in the first places of so many; the others hold zeros."""
    rows, heads, tokens, width = states.shape
    held = states.new_zeros(rows, heads, room, width)
    held[:, :, : min(tokens, room)] = states[:, :, :room]
    return held


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """transformers' layer copies all that it holds at every token; this one at every 64th."""

    keys: Tensor
    values: Tensor
    _room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add states of shape [rows, heads, new tokens, width]; returns those of all tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < after or len(self._room[0]) != len(key_states):
            self._room = self._grown(self.keys, key_states, after), self._grown(self.values, value_states, after)
        keys, values = self._room
        keys[:, :, before:after] = key_states
        values[:, :, before:after] = value_states
        self.keys, self.values = keys[:, :, :after], values[:, :, :after]
        return self.keys, self.values

    def place(self, rows: Sequence[int], columns: Tensor, read: DynamicLayer, count: int) -> None:
        """Take some of `count` rows from a layer that read their tokens in one row.

        Args:
            rows: which rows they are.
            columns: for each of them, where its tokens stand in what was read, shape [rows, tokens].
            read: the layer that holds that, with states of shape [1, heads, read tokens, width].
            count: rows in all.
        """
        if not self.is_initialized:
            self.lazy_initialization(read.keys, read.values)
            room = count, read.keys.shape[1], columns.shape[1] + _BLOCK
            self._room = (
                read.keys.new_zeros(*room, read.keys.shape[-1]),
                read.values.new_zeros(*room, read.values.shape[-1]),
            )
            self.keys, self.values = (states[:, :, : columns.shape[1]] for states in self._room)
        for held, states in ((self.keys, read.keys), (self.values, read.values)):
            held[rows] = states[0][:, columns].transpose(0, 1)

    def _grown(self, held: Tensor, like: Tensor, length: int) -> Tensor:
        rows, heads, _, width = like.shape
        room = like.new_empty(rows, heads, length + _BLOCK, width)
        if held.numel():
            room[:, :, : held.shape[-2]] = held
        return room

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times, in a row."""
        super().batch_repeat_interleave(repeats)
        self._room = None

    def batch_select_indices(self, indices: Tensor) -> None:
        """Only these rows."""
        super().batch_select_indices(indices)
        self._room = None
