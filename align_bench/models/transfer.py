"""Numbers of the host on a device, and back, without waiting for the work that is queued there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy.typing as npt
import torch
from torch import Tensor

_QUEUES = ("cuda", "meta")  # devices that the host can be ahead of; meta stands in for one in tests


def queues(device: torch.device) -> bool:
    """Whether copies from and to that device are queued there, so that the host can go on meanwhile."""
    return device.type in _QUEUES


class OnItsWay:
    """Numbers of a device that are on their way to the host; what is queued after them does not delay them.

    Args:
        values: of any shape; nothing may write into them while they are on their way, but what is queued there.
    """

    def __init__(self, values: Tensor) -> None:
        self._values, self._arrived = values, None
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(values.device))
        elif not queues(values.device):
            self._values = values.cpu()

    def read(self) -> Tensor:
        """The numbers on the host, once they are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values


T = TypeVar("T")


def read_late(found: Iterable[tuple[T, Tensor]]) -> Iterator[tuple[T, Tensor]]:
    """What was found, on the host, in order; where a device queues, it has the next work before the host reads.

    Args:
        found: numbers on a device, with what they are of; each is computed when it is asked for.
    """
    coming: deque[tuple[T, OnItsWay]] = deque()
    for what, values in found:
        coming.append((what, OnItsWay(values)))
        if len(coming) > 1 or not queues(values.device):
            first, numbers = coming.popleft()
            yield first, numbers.read()
    for last, numbers in coming:
        yield last, numbers.read()


def on_device(
    values: Tensor | npt.NDArray[Any] | Sequence[Any], device: torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """These numbers on a device.

    A plain copy to a GPU waits until all that was queued there before is done. One from pinned memory is queued itself,
    and torch keeps that memory until it has been read.

    Args:
        values: a tensor, on the host or on the device already, an array, or (nested) sequences of numbers.
        device: where to.
        dtype: their type there; by default that of the tensor, or what torch makes of such numbers.
    """
    held = torch.as_tensor(values)
    if held.device.type == "cpu" and device.type == "cuda":
        held = held.pin_memory()
    # Elsewhere the memory is not pinned, and might be gone before it was read.
    return held.to(device, dtype, non_blocking=queues(device))
