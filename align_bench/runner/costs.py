"""What an artefact costs: wall-clock seconds, peak memory and use of the device between two points."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.models.peak import peak_flops
from align_bench.records import Cost
from align_bench.runner.allocator import give_back

if TYPE_CHECKING:
    from align_bench.models.precision import Precision


class Meter:
    """Starts on creation; `cost` reads it.

    Peak memory is the device's where there is one, else the process's resident set. Linux lets a process reset its
    peak; where that is refused, the figure is the peak since the process began. What earlier work has freed is given
    back first, so that the peak is that of the work itself.
    """

    def __init__(self) -> None:
        import torch

        self._started = time.monotonic()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            give_back()
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def cost(
        self, tokens: int, flops: float | None = None, precision: Precision | None = None, devices: int = 1
    ) -> Cost:
        """The cost so far.

        Args:
            tokens: tokens that the work brought through the model.
            flops: operations that its passes needed; 0 for work without a model, None where they were not counted.
            precision: what computed them; None for work without a model.
            devices: how many did.
        """
        import torch

        seconds, peak_bytes = time.monotonic() - self._started, _peak_bytes()
        share = flops / seconds / devices / peak_flops(precision) if flops and precision is not None else flops
        if share is not None and share > 1:
            share = None  # the peak was measured beside other work, and is none
        return Cost(seconds, tokens, peak_bytes, flops, share, torch.get_num_threads(), _device(precision))


def _device(precision: Precision | None) -> str:
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "cpu" if precision is None else precision.device


def _peak_bytes() -> int:
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def total(costs: list[Cost]) -> Cost | None:
    """Seconds, tokens and operations summed, memory and threads at their highest, utilisation over all seconds.

    Returns:
        The total; None for no costs at all. Its operations and its utilisation are None where those of one of them are,
        its device where there are several.
    """
    if not costs:
        return None
    seconds = sum(cost.seconds for cost in costs)
    flops = [cost.flops for cost in costs if cost.flops is not None]
    used = [cost.utilisation * cost.seconds for cost in costs if cost.utilisation is not None]
    whole = len(used) == len(costs)
    devices = {cost.device for cost in costs}
    return Cost(
        seconds,
        sum(cost.tokens for cost in costs),
        max(cost.peak_bytes for cost in costs),
        sum(flops) if len(flops) == len(costs) else None,
        sum(used) / seconds if whole and seconds else None,
        max((cost.threads for cost in costs if cost.threads is not None), default=None),
        devices.pop() if len(devices) == 1 else None,
    )
