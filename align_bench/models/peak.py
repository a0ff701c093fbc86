"""How fast this machine multiplies matrices: what estimates rest on, and what utilisation is held against."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align_bench.models.precision import Precision

# Beside other work the best of a few products was seen to be a sixth of what the machine reaches.
_SECONDS, _SIDE, _SIDE_OF_A_GPU = 0.2, 1024, 4096


def peak_flops(precision: Precision) -> float:
    """Operations per second of a large matrix product in the compute type, measured once per process.

    Beside other work it is lower than the device's best, as is all that is held against it.
    """
    return _measured(precision.compute, precision.device, _SECONDS)


def rough_flops(precision: Precision) -> float:
    """The same for plans: where nothing has imported torch yet and numpy can tell, numpy is asked."""
    if "torch" in sys.modules or precision.device != "cpu" or precision.compute != "float32":
        return peak_flops(precision)
    return _by_numpy()


@cache
def _by_numpy() -> float:
    import numpy as np

    matrix: Any = np.ones((_SIDE, _SIDE), np.float32)
    return _best(lambda: matrix @ matrix, _SIDE, _SECONDS)


@cache
def _measured(compute: str, device: str, seconds: float) -> float:
    import torch

    side = _SIDE if device == "cpu" else _SIDE_OF_A_GPU
    left, right = (torch.ones(side, side, dtype=getattr(torch, compute), device=device) for _ in range(2))
    return _best(lambda: (left @ right)[0, 0].item(), side, seconds)  # reading a number waits for the device


def _best(product: Callable[[], object], side: int, seconds: float) -> float:
    """Operations per second of the fastest of as many products as fit into the time, two at least."""
    best, began, count = float("inf"), time.perf_counter(), 0
    while count < 2 or time.perf_counter() - began < seconds:
        started = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - started)
        count += 1
    return 2 * side**3 / best
