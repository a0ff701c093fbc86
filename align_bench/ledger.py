"""What an artefact costs: wall-clock seconds and peak memory between two points."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import torch

from align_bench.records import Cost


class Meter:
    """Starts on creation; `cost` reads it.

    Peak memory is the device's where there is one, else the process's resident set. Linux lets a process reset its
    peak; where that is refused, the figure is the peak since the process began.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def cost(self, tokens: int) -> Cost:
        """The cost so far, of work that brought `tokens` tokens through the model."""
        return Cost(time.monotonic() - self._started, tokens, _peak_bytes())


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def total(costs: list[Cost]) -> Cost | None:
    """Seconds and tokens summed, memory at its highest; None for no costs at all."""
    if not costs:
        return None
    return Cost(
        sum(cost.seconds for cost in costs), sum(cost.tokens for cost in costs), max(cost.peak_bytes for cost in costs)
    )
