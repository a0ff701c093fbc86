"""One more token for each answer of a batch: plainly, or as a CUDA graph, which the host starts as one operator."""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from align_bench.models.cuda_graphs import aside, can_capture, difference, first_line, record
from align_bench.models.kv_cache import can_place, fixed_cache
from align_bench.models.layout import additive_mask, aligned, can_share
from align_bench.models.transfer import queues

if TYPE_CHECKING:
    from align_bench.models.cuda_graphs import Recorded

# Ended answers leave their batch once they are so much of it: that costs a copy of the cache of all others, and a graph
# is captured anew for those that go on.
_LEAVING = 1 / 8
_LEAVING_A_GRAPH = 1 / 2
_CANNOT: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()  # models whose steps could not be captured


class Steps(Protocol):
    """Answers that are written side by side."""

    def next(self, tokens: Tensor) -> Tensor:
        """The logits after one more token of each, shape [answers, vocabulary], until the next call.

        Args:
            tokens: ids, shape [answers].
        """

    def worth_leaving(self, going: int, answers: int) -> bool:
        """Whether those that have ended are to leave, where so many of so many go on."""

    def keep(self, kept: Tensor) -> None:
        """Go on with these answers only, by their place."""


class PlainSteps:
    """The model's own step, on a cache that grows.

    Args:
        inner: a causal language model.
        cache: what it has read.
        mask: which of that is no padding, shape [answers, read].
    """

    def __init__(self, inner: Any, cache: Any, mask: Tensor) -> None:
        self._inner, self._cache, self._mask = inner, cache, mask

    def next(self, tokens: Tensor) -> Tensor:
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        positions = self._mask.sum(1, keepdim=True) - 1
        return logits_after(self._inner, tokens[:, None], self._seen(), positions, self._cache)

    def _seen(self) -> Tensor:
        """What the model takes: transformers would wait for a GPU to see whether a plain mask hides anything."""
        if queues(self._mask.device) and can_share(self._inner, self._mask.shape[1]):
            return additive_mask(self._mask[:, None, None] == 0, self._inner.dtype)
        return self._mask

    def worth_leaving(self, going: int, answers: int) -> bool:
        return answers - going >= _LEAVING * answers

    def keep(self, kept: Tensor) -> None:
        self._cache.batch_select_indices(kept)
        self._mask = self._mask[kept]


class GraphedSteps:
    """The same from and into memory that stays where it is, with room for all tokens.

    The graph is captured at the second token and held to the plain step; where a capture fails or differs, steps are
    plain from then on, and that is said.

    Args:
        inner, cache, mask: as of `PlainSteps`; the cache is copied.
        room: tokens that are held in all, those that were read included.
    """

    def __init__(self, inner: Any, cache: Any, mask: Tensor, room: int) -> None:
        self._inner, self._room = inner, aligned(room)
        self._begin(cache, mask)

    def _begin(self, cache: Any, mask: Tensor) -> None:
        answers, self._held = mask.shape
        device, dtype = self._inner.device, self._inner.dtype
        self._slot = torch.full((1,), self._held, device=device)
        self._cache = fixed_cache(cache, self._room, self._slot)
        self._seen = torch.full((answers, 1, 1, self._room), torch.finfo(dtype).min, dtype=dtype, device=device)
        self._seen[:, 0, 0, : self._held].masked_fill_(mask.bool(), 0)
        self._positions = mask.sum(1, keepdim=True)
        self._tokens = self._positions.new_zeros(answers, 1)
        self._steps = 0
        self._recorded: Recorded | None = None

    def next(self, tokens: Tensor) -> Tensor:
        self._tokens.copy_(tokens[:, None])
        self._seen.index_fill_(3, self._slot, 0)
        self._steps += 1
        if self._steps == 2 and self._inner not in _CANNOT:
            self._capture()
        if self._recorded is None:
            logits = self._step()
        else:
            self._recorded.replay()
            logits = self._recorded.result
        self._slot += 1
        self._positions += 1
        self._held += 1
        return logits

    def worth_leaving(self, going: int, answers: int) -> bool:
        return answers - going >= _LEAVING_A_GRAPH * answers

    def keep(self, kept: Tensor) -> None:
        self._cache.batch_select_indices(kept)
        self._begin(self._cache, (self._seen[kept, 0, 0, : self._held] == 0).long())

    def _step(self) -> Tensor:
        """The same however often it is done: what is written goes where it was written before."""
        return logits_after(self._inner, self._tokens, self._seen, self._positions, self._cache)

    def _capture(self) -> None:
        try:
            plain = aside(self._step, self._tokens.device)
            found = record(self._step)
            found.replay()
            why = difference("logits", found.result, plain)
        except Exception as error:  # a library may object in any way
            why = f"a step could not be captured ({first_line(error)})"
        if why is None:
            self._recorded = found
            return
        _CANNOT[self._inner] = True
        warnings.warn(f"answers are written without CUDA graphs from here on: {why}", stacklevel=2)


def steps_of(inner: Any, cache: Any, mask: Tensor, *, tokens: int, graphed: bool) -> Steps:
    """How answers are written.

    Args:
        inner, cache, mask: as of `PlainSteps`.
        tokens: that are to be written at most.
        graphed: whether steps on a CUDA device are to be CUDA graphs.
    """
    room = mask.shape[1] + tokens
    possible = graphed and can_capture(inner.device) and inner not in _CANNOT
    if possible and can_place(cache) and can_share(inner, room):
        return GraphedSteps(inner, cache, mask, room)
    return PlainSteps(inner, cache, mask)


def logits_after(inner: Any, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
    """The logits after ids that the model reads into a cache, shape [rows, vocabulary]."""
    seen = {"attention_mask": mask, "position_ids": positions, cache_name(inner): cache}
    logits: Tensor = inner(ids, **seen, use_cache=True, logits_to_keep=1).logits[:, -1]
    return logits


def cache_name(inner: Any) -> str:
    """How this model calls the cache; transformers renamed it during its fifth version."""
    return "cache" if "cache" in inspect.signature(type(inner).forward).parameters else "past_key_values"
