"""Training passes of a decoder as CUDA graphs: the host starts two of them instead of a pass's thousands of kernels.

A graph computes from and into memory that stays where it is, so that each shape of rows needs its own. Rows are padded
to few shapes, whether they pass as a graph or not: numbers do not depend on when a shape was captured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import count
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from align_bench.models.flat_weights import FlatWeights

_LEAST_TIME = 32  # tokens; shorter rows are padded to it
_MOST = 32  # graphs of one training, each with its own inputs
_WORTH_CAPTURING = 2  # times that a shape has to come; capturing computes the pass twice more
_APART = 1e-3  # of a graph's numbers from the plain ones, relative to their norm, in fp32
_APART_ELSE = 0.05

Shape = tuple[int, int]
T = TypeVar("T")


class Recorded(NamedTuple):
    """Work that can be done again, from and into the same memory.

    Attributes:
        result: what it computes, without gradient.
        replay: does it again.
    """

    result: Tensor
    replay: Callable[[], None]


def record(work: Callable[[], Tensor], pool: Any = None) -> Recorded:
    """Capture work as a CUDA graph. It has been done before, so that libraries have set themselves up.

    Args:
        work: reads and writes tensors that stay where they are, and neither waits for the device nor draws.
        pool: memory that it shares with other graphs, of which no two are at work at a time; its own if not given.

    Raises:
        Exception: what the work raised, or the capture itself.
    """
    graph, now = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            result = work()
    except Exception as error:
        # A capture whose end fails leaves its own stream in use, and hides why it failed.
        torch.cuda.set_stream(now)
        if isinstance(error.__context__, Exception):
            raise error.__context__ from None
        raise
    return Recorded(result.detach(), graph.replay)


def can_capture(device: torch.device) -> bool:
    """Whether work on such a device can be captured."""
    return device.type == "cuda"


def aside(work: Callable[[], T], device: torch.device) -> T:
    """Do work on a stream of its own, as a capture asks for: what libraries set up at a first call is not captured."""
    if device.type != "cuda":
        return work()
    now, other = torch.cuda.current_stream(), _beside(device)
    other.wait_stream(now)
    with torch.cuda.stream(other):
        result = work()
    now.wait_stream(other)
    return result


@cache
def _beside(device: torch.device) -> torch.cuda.Stream:
    """One for all: cuBLAS keeps memory for each stream that it has worked on."""
    return torch.cuda.Stream(device)


def difference(what: str, found: Tensor, plain: Tensor) -> str | None:
    """How a graph's numbers differ from the plain ones, in words; None where it is by rounding alone."""
    norm = plain.float().norm().clamp(min=torch.finfo(torch.float32).tiny)
    apart = float((found.float() - plain.float()).norm() / norm)
    if apart <= (_APART if plain.dtype == torch.float32 else _APART_ELSE):
        return None
    return f"{what} of a graph differ from the plain ones by {apart:.2g} of their norm"


def first_line(error: Exception) -> str:
    """What an error says first, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


class _Trained(NamedTuple):
    """The weights of a decoder that learn, side by side in a buffer, from `start` on."""

    weights: Mapping[str, Tensor]
    buffer: Tensor
    start: int

    def places(self) -> list[int]:
        """Where in memory they are."""
        return [weight.data_ptr() for weight in self.weights.values()]


class _Pass:
    """A pass whose inputs, and the weights that learn, stay where they are in memory.

    Attributes:
        decoder: a transformers decoder.
        inputs: its keyword arguments: `input_ids`, `position_ids` and the additive `attention_mask`.
        trained: the weights that learn, by name.
        places: where in memory these were.
        forward: computes the hidden states, shape [rows, time, width].
        slope: their gradient, which `backward` begins with.
        backward: computes the gradient of the buffer that the weights are views of.
    """

    forward: Recorded
    slope: Tensor
    backward: Recorded

    def __init__(self, decoder: Any, inputs: Mapping[str, Tensor], trained: _Trained) -> None:
        self.decoder, self.inputs, self.trained = decoder, inputs, trained
        self.places = trained.places()
        self._under_way: tuple[Tensor, list[Tensor]] | None = None  # the states, and what they are to be derived by

    def record(self, pool: Any) -> None:
        """Capture both directions."""
        self.forward = record(self._forward, pool)
        self.slope = torch.zeros_like(self.forward.result)
        self.backward = record(self._backward, pool)

    def plainly(self) -> tuple[Tensor, Tensor]:
        """Hidden states, and the gradients where theirs are these states themselves, without a graph."""
        states = self._forward()
        self.slope = states.detach()
        return self.slope, self._backward()

    def _forward(self) -> Tensor:
        # An earlier loss may still be held, and with it what autograd knows of the weights themselves: the stream that
        # they were read on then, which a capture must not meet. So it reads other tensors, in the same memory.
        aliases = {name: weight.detach().requires_grad_() for name, weight in self.trained.weights.items()}
        with torch.enable_grad():
            output = torch.func.functional_call(self.decoder, aliases, (), {**self.inputs, "use_cache": False})
        states: Tensor = output.last_hidden_state
        self._under_way = states, list(aliases.values())
        return states

    def _backward(self) -> Tensor:
        assert self._under_way is not None, "backward comes after forward"
        (states, aliases), self._under_way = self._under_way, None
        found = torch.autograd.grad(states, aliases, self.slope)
        line = torch.cat([gradient.flatten() for gradient in found])
        behind = self.trained.buffer.numel() - self.trained.start - line.numel()
        return pad(line, (self.trained.start, behind))


class Graphs:
    """The graphs of one training, by the shape of the padded rows.

    What cannot be captured, or gives other numbers than the plain pass, passes plainly from then on, and that is said.

    Args:
        say: takes a line for whoever watches.
        flat: the weights that learn.
    """

    def __init__(self, say: Callable[[str], None], flat: Sequence[FlatWeights]) -> None:
        self._say = say
        self._flat = flat
        self._seen: Counter[Shape] = Counter()
        self._known: dict[Shape, _Pass] = {}
        self._pool: Any = None
        self._given_up = False
        self._found: tuple[Any, _Trained | None] = (None, None)
        self._between = False  # some pass has gone forward, and not back yet

    def begin(self) -> None:
        """No pass is under way: the last one went back, or an attempt at a step begins."""
        self._between = False

    def forget(self) -> None:
        """Give the memory of all graphs back, as memory has run out."""
        self._known.clear()
        self._seen.clear()
        self._pool = None
        self._between = False

    @property
    def captured(self) -> int:
        """How many shapes pass as graphs."""
        return len(self._known)

    def states(self, decoder: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """The hidden states of a training pass.

        Args:
            decoder: a transformers decoder, some weights of which learn.
            inputs: its keyword arguments, `input_ids` and `position_ids` of shape [rows, time], and the additive
                `attention_mask` of shape [rows, 1, time, time].

        Returns:
            Shape [rows, time, width].
        """
        rows, time = inputs["input_ids"].shape
        shape = _bucket(rows), max(_LEAST_TIME, _bucket(time, steps=4))
        self._seen[shape] += 1
        found = None if self._between else self._pass(decoder, inputs, shape)
        if found is None:
            states: Tensor = decoder(**padded(inputs, shape), use_cache=False).last_hidden_state
        else:
            padded(inputs, shape, found.inputs)
            self._between = True
            states = _Replayed.apply(self, found, found.trained.buffer)  # type: ignore[no-untyped-call]
        return states[:rows, :time]

    def _pass(self, decoder: Any, inputs: Mapping[str, Tensor], shape: Shape) -> _Pass | None:
        """The graphs for a shape, where they are worth it and can be."""
        trained = self._trained(decoder)
        if self._given_up or trained is None:
            return None
        if (known := self._known.get(shape)) is not None:
            # A weight that has been put elsewhere would not be the one that the graph reads.
            return known if known.decoder is decoder and known.places == trained.places() else None
        wanted = self._seen[shape] >= _WORTH_CAPTURING and len(self._known) < _MOST
        if not wanted or not _repeatable(decoder):
            return None
        found = _Pass(decoder, padded(inputs, shape), trained)
        try:
            why = self._captured(found)
        except Exception as error:  # a library may object in any way
            why = f"a pass could not be captured ({first_line(error)})"
        if why is not None:
            self._give_up(why)
            return None
        self._known[shape] = found
        return found

    def _trained(self, decoder: Any) -> _Trained | None:
        """The weights that learn, looked for once, which takes longer than to start a graph."""
        if self._found[0] is not decoder:
            weights = {name: weight for name, weight in decoder.named_parameters() if weight.requires_grad}
            places = ((flat.buffer, flat.place(list(weights.values()))) for flat in self._flat)
            found = next((_Trained(weights, buffer, start) for buffer, start in places if start is not None), None)
            self._found = decoder, found
            if weights and found is None:
                self._give_up("the weights that learn are of several types, or on several devices")
        return self._found[1]

    def _give_up(self, why: str) -> None:
        self._given_up = True
        self.forget()
        self._say(f"train.cuda_graphs has no effect from here on: {why}")

    def _captured(self, one: _Pass) -> str | None:
        """Capture a pass, and hold it to the plain one; how they differ, or None."""
        device = one.inputs["input_ids"].device
        states, line = aside(one.plainly, device)
        if self._pool is None and device.type == "cuda":
            self._pool = torch.cuda.graph_pool_handle()
        one.record(self._pool)
        one.forward.replay()
        one.slope.copy_(states)
        one.backward.replay()
        return difference("hidden states", one.forward.result, states) or difference(
            "gradients", one.backward.result, line
        )


def _repeatable(decoder: Any) -> bool:
    """Whether a pass draws nothing at random, and no layer runs again in the backward pass."""
    return not any(
        (isinstance(module, torch.nn.Dropout) and module.p > 0)
        or getattr(module, "attention_dropout", 0)
        or getattr(module, "gradient_checkpointing", False)
        for module in decoder.modules()
    )


class _Replayed(torch.autograd.Function):
    """A recorded pass; what it computed is copied out, for the next one computes into the same memory."""

    @staticmethod
    def forward(ctx: Any, graphs: Graphs, one: _Pass, buffer: Tensor) -> Tensor:
        one.forward.replay()
        ctx.graphs, ctx.one = graphs, one
        return one.forward.result.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        one = ctx.one
        one.slope.copy_(slope)
        one.backward.replay()
        ctx.graphs.begin()
        return None, None, one.backward.result.clone()


def _bucket(number: int, steps: int = 2) -> int:
    """The next number of those that divide each doubling into so many steps: 1, 2, 3, 4, 6, 8, 12, 16 … for two."""
    for power in count():
        step = max(1, 2**power // steps)
        for found in range(2**power, 2 ** (power + 1), step):
            if found >= number:
                return found
    raise AssertionError("there is always one")


def padded(inputs: Mapping[str, Tensor], shape: Shape, into: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Rows in the corner of larger ones. What is added sees itself alone, and nobody sees it.

    Args:
        inputs: as of `Graphs.states`.
        shape: rows and time of the result.
        into: the result of an earlier call for this shape, to be overwritten; a new one where there is none.
    """
    rows, time = inputs["input_ids"].shape
    large = dict(into) if into is not None else _empty(inputs, shape)
    for name in ("input_ids", "position_ids"):
        large[name].zero_()
        large[name][:rows, :time].copy_(inputs[name])
    mask = large["attention_mask"]
    mask.fill_(torch.finfo(mask.dtype).min)
    mask.diagonal(dim1=2, dim2=3).zero_()
    mask[:rows, :, :time, :time].copy_(inputs["attention_mask"])
    return large


def _empty(inputs: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    rows, time = shape
    shapes = {"input_ids": shape, "position_ids": shape, "attention_mask": (rows, 1, time, time)}
    return {name: inputs[name].new_empty(size) for name, size in shapes.items()}


_GRAPHS: ContextVar[Graphs | None] = ContextVar("graphs", default=None)


@contextmanager
def graphs(used: Graphs | None) -> Iterator[None]:
    """Training passes go through these graphs, where there are any, while the context lasts: one attempt at a step."""
    if used is not None:
        used.begin()
    before = _GRAPHS.set(used)
    try:
        yield
    finally:
        _GRAPHS.reset(before)


def graphs_for(decoder: Any, inputs: Mapping[str, Tensor]) -> Graphs | None:
    """The graphs that a pass goes through: one that trains, of rows with a mask of positions."""
    used = _GRAPHS.get()
    if used is None or not (decoder.training and torch.is_grad_enabled()) or "position_ids" not in inputs:
        return None
    return used if "attention_mask" in inputs else None
