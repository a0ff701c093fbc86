"""Numbers of the host on a device, without waiting for the work that is queued there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def on_device(values: Tensor | Sequence[Any], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """These numbers on a device.

    A plain copy to a GPU waits until all that was queued there before is done. One from pinned memory is queued itself,
    and torch keeps that memory until it has been read.

    Args:
        values: a tensor, on the host or on the device already, or (nested) sequences of numbers.
        device: where to.
        dtype: their type there; by default that of the tensor, or what torch makes of such numbers.
    """
    held = values if isinstance(values, Tensor) else torch.tensor(values)
    if held.device.type == "cpu" and device.type == "cuda":
        held = held.pin_memory()
    # Elsewhere the memory is not pinned, and might be gone before it was read.
    return held.to(device, dtype, non_blocking=device.type in ("cuda", "meta"))
